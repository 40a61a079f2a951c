"""Delivery: turn alarm transitions into signed webhooks and keep at it until each is accepted.

`NoticePlanner` plans notices, `number` makes outbox rows of them inside the commit, `Courier` sends rows
(or, while a commit hangs, bare notices) and hands back results for the next commit.
"""

from alerting.delivery.courier import Courier, ReceiverCondition, ReceiverStatus
from alerting.delivery.errors import DeliveryError, NoAnswerError, SecretRefusedError
from alerting.delivery.notices import NoticePlanner, plan
from alerting.delivery.outbox import LANES, Attempt, Notice, OutboxRow, SequenceKey, notice_id, number
from alerting.delivery.post import HttpPost, Post
from alerting.delivery.render import render, render_heartbeat
from alerting.delivery.schedule import Answer
from alerting.delivery.signing import Signer, parse_secrets
from alerting.delivery.words import SiteWords

__all__ = [
    "LANES",
    "Answer",
    "Attempt",
    "Courier",
    "DeliveryError",
    "HttpPost",
    "NoAnswerError",
    "Notice",
    "NoticePlanner",
    "OutboxRow",
    "Post",
    "ReceiverCondition",
    "ReceiverStatus",
    "SecretRefusedError",
    "SequenceKey",
    "Signer",
    "SiteWords",
    "notice_id",
    "number",
    "parse_secrets",
    "plan",
    "render",
    "render_heartbeat",
]
