"""The JSON Schema of a site, for editors that complete and check YAML while one types.

`config/site.schema.json` is the text of `site_schema_text()`; a test tells when it is old.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from config.site import SiteConfig

SCHEMA_FILE = Path(__file__).parent / "site.schema.json"


def site_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the site document."""
    schema = SiteConfig.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "hazardgate site"}


def site_schema_text() -> str:
    """Return the schema as the text of `site.schema.json`."""
    return json.dumps(site_schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
