"""What a person reads on a DAG's page: what it does, and what to look at when it fails."""

from __future__ import annotations

from tidewheel.clock import HOUR_US
from tidewheel.spec.project import ModelProject
from tidewheel.spec.stages import lateness_us


def monitor_notes(project: ModelProject) -> str:
    return f"""## {project.name}: monitor
{project.description}

`tidewheel monitor` compares what was served with what the champion was trained on, the feed with the days before, and
scores with mature labels. Then it starts `{project.name}__train` for the same time, once per decision.
{_triage(project)}"""


def train_notes(project: ModelProject) -> str:
    asks = """
Where the policy wants a retrain, a person answers here (Required Actions) or by `tidewheel approve`; `tidewheel status`
shows why it is wanted. An answer within seconds of the question may be lost by Airflow: the task then asks again, so
answer again. `policy` is skipped where there is nothing to ask.
"""
    return f"""## {project.name}: train
{project.description}

`tidewheel train --if-needed` asks the retrain policy, records its decision either way, and trains where it says so.
Only the gate promotes. A run that is killed is taken up by its retry: one decision makes one version.
{asks if project.needs_approval else ""}{_triage(project)}"""


def question_text(project: ModelProject) -> str:
    return f"""The retrain policy wants a new version of **{project.name}**; tier {project.tier} asks a person first.

What it found: `tidewheel status`, or the log of the task `policy`. Approving trains; the gate and the rollout still
decide what serves."""


def _triage(project: ModelProject) -> str:
    means = "a person approves each retrain and each promotion" if project.needs_approval else "the policy alone"
    return f"""
### Triage
- A task's log ends with the reason and what to do. Exit code 1: the input or a neighbour; 2: a wrong command; 3: a
  fault of tidewheel, whose log names a report. Every task may be cleared and run again, with the same end state.
- Findings are not failures. `tidewheel status` lists them, and docs/runbooks has a page for each.
- Replay: trigger with `{{"as_of": "2026-03-09"}}`. Without it a run looks at the newest complete
  {_length(project.monitoring.every_us)}, {_length(lateness_us(project))} after its end: late events have come by then.

Owner: {project.owner}. Tier {project.tier}: {means}.
"""


def _length(us: int) -> str:
    hours = us / HOUR_US
    return f"{hours / 24:g} d" if hours >= 24 else f"{hours:g} h" if hours >= 1 else f"{hours * 60:g} min"
