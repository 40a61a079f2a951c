"""`hazardgate export`, `import` and `store`: what was measured, into files and other stores and back."""

from __future__ import annotations

import typer

from cli import export, importing, store_copy
from cli.store import store_app

history_app = typer.Typer()


history_app.command("export", help=export.HELP)(export.export_command)
history_app.command("import", help=importing.HELP)(importing.import_command)
store_app.command("copy", help=store_copy.HELP)(store_copy.copy_command)
history_app.add_typer(store_app, name="store")
