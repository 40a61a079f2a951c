"""From a file to a checked site: every problem at once, each with its line, or a SiteConfig."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from config.checks_limits import check_tags
from config.checks_references import check_ids, check_readers, check_references
from config.checks_registers import check_edges
from config.checks_site import check_site_facts
from config.checks_storage import check_stores
from config.draft import Draft, Finding, draft_of_document, draft_of_site
from config.problems import ConfigErrors, ConfigProblem, Severity
from config.site import SiteConfig
from config.structure import Locator, in_document_order, structure_problems
from config.yaml_tree import Node, parse_tree, read_tree

SITE_FILE_NAME = "site.yaml"
DEMO_SITE = Path(__file__).parent / "sites" / "demo" / SITE_FILE_NAME


@dataclass(frozen=True, slots=True)
class SiteCheck:
    """What a check found. `site` is None if and only if there are errors."""

    site: SiteConfig | None
    errors: tuple[ConfigProblem, ...]
    warnings: tuple[ConfigProblem, ...]


def load_site(path: Path | str) -> SiteConfig:
    """Return the site in the file, or in `site.yaml` of the folder, at `path`.

    Raises:
        ConfigErrors: all problems at once. Warnings alone do not raise; `check_site` returns them.
    """
    check = check_site(path)
    if check.site is None:
        raise ConfigErrors(check.errors, check.warnings)
    return check.site


def check_site(path: Path | str) -> SiteCheck:
    """Return the site, its errors and its warnings; never raises for what stands in the file."""
    path = Path(path)
    if path.is_dir():
        path = path / SITE_FILE_NAME
    try:
        root = read_tree(path)
    except ConfigErrors as errors:
        return SiteCheck(None, errors.problems, ())
    return _check_tree(root, str(path))


def parse_site(text: str, file: str = "site.yaml") -> SiteConfig:
    """Return the site in YAML text; `file` is only its name in messages. Raises ConfigErrors."""
    check = check_text(text, file)
    if check.site is None:
        raise ConfigErrors(check.errors, check.warnings)
    return check.site


def check_text(text: str, file: str = "site.yaml") -> SiteCheck:
    """Return the site in YAML text, its errors and its warnings; never raises for what stands in it."""
    try:
        root = parse_tree(text.encode("utf-8", "surrogatepass"), file)
    except ConfigErrors as errors:
        return SiteCheck(None, errors.problems, ())
    return _check_tree(root, file)


def cross_check(site: SiteConfig) -> SiteCheck:
    """Run the cross checks on a site that was built in code; problems then have no line."""
    findings = list(_findings(draft_of_site(site)))
    return _checked(site, [], findings, Locator(site.site, None))


def _check_tree(root: Node, file: str) -> SiteCheck:
    locator = Locator(file, root)
    document = root.plain()
    if not isinstance(document, dict):
        problem = ConfigProblem(
            file,
            root.line,
            root.column,
            "",
            "a site is a mapping: lines of 'key: value'",
            "begin with version: 1",
            "文件应由键值对组成",
        )
        return SiteCheck(None, (problem,), ())
    site: SiteConfig | None = None
    problems: list[ConfigProblem] = []
    try:
        site = SiteConfig.model_validate(document)
        draft = draft_of_site(site)
    except ValidationError as error:
        problems = structure_problems(error, SiteConfig, locator)
        draft = draft_of_document(document, error)
    return _checked(site, problems, list(_findings(draft)), locator)


def _checked(
    site: SiteConfig | None, problems: list[ConfigProblem], findings: list[Finding], locator: Locator
) -> SiteCheck:
    told = in_document_order([*problems, *(locator.problem(finding) for finding in findings)])
    errors = tuple(problem for problem in told if problem.severity is Severity.ERROR)
    warnings = tuple(problem for problem in told if problem.severity is Severity.WARNING)
    return SiteCheck(None if errors else site, errors, warnings)


def _findings(draft: Draft) -> Iterator[Finding]:
    yield from check_ids(draft)
    yield from check_references(draft)
    yield from check_readers(draft)
    yield from check_tags(draft)
    yield from check_edges(draft)
    yield from check_site_facts(draft)
    yield from check_stores(draft)
