"""`hazardgate check`: every problem of a site file, for people or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cli.language import language, say
from config import check_site


def check_command(path: Path, *, as_json: bool) -> int:
    """Print what is wrong; 0 when the site can be used (warnings allowed), 1 otherwise."""
    found = check_site(path)
    problems = [*found.errors, *found.warnings]
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems], ensure_ascii=False))
        return 0 if found.site is not None else 1
    for problem in problems:
        severity = say({"error": "错误", "warning": "提示"}[problem.severity], str(problem.severity))
        print(f"{severity}: {problem.describe(language())}")
    if found.site is None:
        print(say(f"不可用：{len(found.errors)} 处错误", f"not usable: {len(found.errors)} errors"))
        return 1
    edges, tags = len(found.site.edges), len(found.site.tags)
    print(say(
        f"{found.site.site}：可用，{tags} 个测点，{edges} 个采集终端，{len(found.warnings)} 条提示",
        f"{found.site.site}: usable, {tags} tags, {edges} edges, {len(found.warnings)} warnings",
    ))  # fmt: skip
    return 0
