"""Cross checks of the site's own facts: the grade of a hazard source, grades that reach nobody, an open broker."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from config.draft import Draft, Finding
from config.endpoints import is_loopback
from config.model import GRADES
from config.problems import Severity

# GB 18218-2018 Table 6: from which R on a major hazard source has grade 1, 2, 3; below the last it has 4.
GRADE_FLOORS = ((Decimal(100), 1), (Decimal(50), 2), (Decimal(10), 3))


def hazard_grade(r_value: float) -> int:
    """Return the grade of GB 18218-2018 for R, compared in exact decimals as the number was typed."""
    r = Decimal(repr(r_value))
    return next((grade for floor, grade in GRADE_FLOORS if r >= floor), 4)


def check_site_facts(draft: Draft) -> Iterator[Finding]:
    """Facts that contradict each other; all of them warn, because the record of the authority decides."""
    for source in draft.hazard_sources:
        part = source.part
        if part.grade is None:
            continue
        if part.s_value is not None and part.s_value < 1:
            yield Finding(
                (*source.path, "grade"),
                f"S is {part.s_value:g}, below 1, so the unit has no grade",
                f"S 为 {part.s_value:g}, 小于 1, 不构成重大危险源, 没有级别",
                "remove grade, or correct s_value",
                Severity.WARNING,
            )
        elif part.r_value is not None and hazard_grade(part.r_value) != part.grade:
            yield Finding(
                (*source.path, "grade"),
                f"R {part.r_value:g} means grade {hazard_grade(part.r_value)}, not {part.grade}",
                f"R 值 {part.r_value:g} 对应 {hazard_grade(part.r_value)} 级, 而不是 {part.grade} 级",
                "GB 18218-2018 Table 6",
                Severity.WARNING,
            )
    if draft.receivers and draft.all_receivers and draft.tags:
        for grade in GRADES:
            if not any(grade in receiver.part.grades for receiver in draft.receivers):
                yield Finding(
                    ("receivers",),
                    f"no receiver wants {grade.word} alarms",
                    f"没有接收方接收{grade.zh}色报警",
                    "add the grade to a receiver",
                    Severity.WARNING,
                )
    broker = draft.broker
    if broker is not None and broker.tls is None and broker.username is None and not is_loopback(broker.host):
        # Whoever may publish NCMD may acknowledge frames in the gateway's name.
        yield Finding(
            ("broker",),
            f"the broker at {broker.host} is not on this machine and has neither tls nor username: whoever reaches it "
            "may make an edge forget what it has not delivered",
            f"消息代理 {broker.host} 不在本机，又没有 tls 和 username：能连上它的任何人都可使采集终端丢弃尚未送达的数据",
            "give it TLS and users, and let only the gateway publish NCMD",
            Severity.WARNING,
        )
