"""The question that a person answers in Airflow where a project's tier demands it.

An answer that comes before the scheduler has handled the parking of the task is accepted and then lost (apache/airflow,
seen on 3.3.2): the task is retried and asks anew. So retries are safe here and needed, and no answer raises: a refusal
is an answer. Nobody's answer in time is "ask again later", by which an answer given elsewhere is noticed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLBranchOperator
from airflow.sdk import Param

APPROVE, REFUSE, LATER = "Approve", "Refuse", "Ask again later"
ANSWER = "answer"  # key of what was answered: by whom, and why
RETRIES = 5


class AskPerson(HITLBranchOperator):  # type: ignore[misc]  # Airflow is not in this environment
    """Branches to the task of the answer, and keeps who gave it and why for that task's command."""

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        given = event.get("responded_by_user") or {}
        name = given.get("name") if isinstance(given, dict) else getattr(given, "name", None)
        reason = (event.get("params_input") or {}).get("reason") or "no reason given"
        context["ti"].xcom_push(key=ANSWER, value={"by": name or "nobody", "reason": f"{reason} (in Airflow)"})
        return super().execute_complete(context=context, event=event)


def question(subject: str, body: str, tasks: dict[str, str], wait: timedelta) -> AskPerson:
    """The task ``ask``; ``tasks``: option to the task that follows it. Asks for at most ``wait``."""
    return AskPerson(
        task_id="ask",
        subject=subject,
        body=body,
        options=list(tasks),
        options_mapping=tasks,
        defaults=LATER,
        params={"reason": Param("", type="string", maxLength=500, description="Why; for the ledger.")},
        response_timeout=wait,
        retries=RETRIES,
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=False,
    )
