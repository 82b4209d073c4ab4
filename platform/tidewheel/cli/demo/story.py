"""The story: the whole loop closes once, step by step, each step verified by what public commands print.

It decides nothing that the platform should decide. It plays the people and the world around the platform: the feed,
the callers, the person who approves.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidewheel.cli.demo.calendar import Calendar, midnight
from tidewheel.cli.demo.commands import Commands, StepFailed
from tidewheel.cli.demo.screen import Screen

RATE_RPS = 1200
LOOK_EVERY_S = 0.3
LOOKS_AT_MOST = 400

STAGES = (
    "a project is made and the platform starts",
    "events flow into store and lake",
    "a version is trained and passes the gate",
    "the version is served",
    "stationary weeks: nothing is reported",
    "a broken feed is found, retraining is refused",
    "the world changes: drift is found and reported",
    "a person approves, a challenger is trained",
    "the rollout promotes the challenger",
    "moving back rolls back",
)


@dataclass
class Story:
    """One telling; ``figures`` fill as it goes and are all that ``--output json`` prints."""

    folder: Path
    commands: Commands
    screen: Screen
    calendar: Calendar = field(default_factory=Calendar)
    figures: dict[str, Any] = field(default_factory=dict)
    days: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)  # what `status` said last

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def tell(self) -> None:
        """Everything in order. Raises StepFailed at the first step that is not as it must be."""
        for stage, step in zip(STAGES, self._steps(), strict=True):
            began = time.monotonic()
            self.screen.begin(stage)
            self.screen.finish(stage, step())
            self.seconds[stage] = round(time.monotonic() - began, 1)
        total = sum(day["n_requests"] for day in self.days)
        failed = sum(day["n_failed"] for day in self.days)
        self._must(failed == 0, f"{failed} of {total} requests failed")
        self.figures["requests"] = {
            "n_requests": total,
            "n_failed": failed,
            "n_degraded": sum(day["n_degraded"] for day in self.days),
            "p50_ms": sorted(day["p50_ms"] for day in self.days)[len(self.days) // 2],
            "p99_ms": sorted(day["p99_ms"] for day in self.days)[len(self.days) // 2],
            "p99_ms_of_the_worst_day": max(day["p99_ms"] for day in self.days),
        }

    def _steps(self) -> tuple[Callable[[], str], ...]:
        return (
            self._start, self._ingest_history, self._train_first, self._serve_first, self._stationary_weeks,
            self._broken_feed, self._drift, self._approve_retrain, self._rollout, self._roll_back,
        )  # fmt: skip

    # -- the steps ---------------------------------------------------------------------------------------------

    def _start(self) -> str:
        self.commands.tidewheel(
            "new", "card-fraud", "--template", "card_fraud", "--into", str(self.commands.project), project=False
        )
        checked = self.commands.tidewheel("validate")
        self.commands.tidewheel("up", "--no-wait")
        generate = self.commands.project / "generate.py"
        days = ("--days", str(self.calendar.history_days), *self.calendar.population())
        self.commands.python(generate, "--out", str(self.data / "history"), *days)
        up = self.commands.tidewheel("up")
        self.figures["platform"] = {"mlflow": up["mlflow_uri"], "processes": sorted(up["processes"])}
        return f"{len(checked['features'])} features declared, {len(up['processes'])} processes healthy"

    def _ingest_history(self) -> str:
        result = self._ingest(self.data / "history")
        rest = (
            "--first-day", str(self.calendar.history_days),
            "--days", str(self.calendar.last_day - self.calendar.history_days), "--per-day",
            *self.calendar.population(),
        )  # fmt: skip
        generate = self.commands.project / "generate.py"
        self.commands.python(generate, "--out", str(self.data), *rest, *self.calendar.switches())
        events = {name: source["n_accepted"] for name, source in result["sources"].items()}
        rejected = sum(source["n_rejected"] for source in result["sources"].values())
        self._must(rejected == 0, f"{rejected} generated rows were rejected")
        self.figures["history"] = events
        return ", ".join(f"{count:,} {name}" for name, count in events.items())

    def _train_first(self) -> str:
        trained = self.commands.tidewheel("train", "--as-of", midnight(self.calendar.history_days))
        self._must(trained["gate"]["action"] == "pass", f"the gate refused the first version: {trained['gate']}")
        self.figures["first_version"] = trained
        metric = trained["metrics"]["average_precision"]
        return f"version {trained['version']}, average precision {_estimate(metric)}"

    def _serve_first(self) -> str:
        version = str(self.figures["first_version"]["version"])
        self.commands.tidewheel("promote", version, "--reason", "first version")
        reply = self._ask()
        self._must(str(reply["model_version"]) == version, f"version {version} was promoted, {reply} answered")
        self.screen.version = f"version {version}"
        self.figures["first_reply"] = reply
        return f"version {version} answers: score {reply['score']:.3f}, {reply['decision']}"

    def _stationary_weeks(self) -> str:
        first, last = self.calendar.history_days, self.calendar.broken_from
        found: list[str] = []
        for day in range(first, last):
            found.extend(self._live_through(day))
        # The last day's monitor runs at the first events of the next day, and is looked at a day later.
        for day in (last, last + 1):
            found.extend(self._live_through(day))
        self._must(not found, f"findings on stationary data: {found}")
        runs = self.days[-1]
        self._must(runs["n_labels_mature"] > 0, "no mature label was joined to a prediction in two weeks")
        return f"{last - first} days, no finding, {runs['n_labels_mature']:,} mature labels joined"

    def _broken_feed(self) -> str:
        found: list[str] = []
        for day in range(self.calendar.broken_from + 2, self.calendar.drift_from):
            found.extend(self._live_through(day))
        refused = self._decision("refuse", "DataUnhealthy")
        self._must(any(line.startswith("FeedBroken") for line in found), f"no FeedBroken among {found}")
        self.figures["broken_feed"] = {"findings": sorted(set(found)), "decision": refused}
        return f"{refused['id']} refused: {refused['findings'][0]['message']}"

    def _drift(self) -> str:
        found: list[str] = []
        self._waiting: dict[str, Any] | None = None
        for day in range(self.calendar.drift_from, self.calendar.last_day):
            found.extend(self._live_through(day))
            self._next_day = day + 1
            self._waiting = self._pending("retrain")
            if self._waiting:
                break
        self._must(any(line.startswith("FeatureDrift") for line in found), f"no FeatureDrift among {found}")
        self._must(self._waiting is not None, "no decision to retrain waits for a person")
        reports = [Path(lived["report"]) for lived in self.days if lived["report"]]
        self._must(bool(reports) and reports[-1].stat().st_size > 100_000, "no Evidently report was written")
        self.figures["drift"] = {
            "first_finding": next(line for line in found if line.startswith("FeatureDrift")),
            "findings": sorted({line.split(":")[0] for line in found}),
            "days_until_decision": self._next_day - self.calendar.drift_from,
            "report": str(reports[-1]),
        }
        return f"{self.figures['drift']['first_finding']}; report {reports[-1].name}"

    def _approve_retrain(self) -> str:
        assert self._waiting is not None
        decision = self._waiting["id"]
        self.commands.tidewheel("approve", decision, "--reason", "prices rose, the labels of the new prices are in")
        done = self._wait_for(f"{decision} to be carried out", lambda seen: _executed(seen, decision))
        result = done["result"]
        self._must(result.get("alias") == "challenger", f"the candidate did not pass the gate: {result}")
        self.figures["retrain"] = {"decision": decision, **result}
        gain = result["metrics"]["average_precision"]["value"] - result["champion"]["average_precision"]["value"]
        self.figures["retrain"]["gain"] = gain
        return f"version {result['version']} gains {gain:+.3f} average precision on the newest mature week"

    def _rollout(self) -> str:
        version = str(self.figures["retrain"]["version"])
        promote = None
        for day in range(self._next_day, min(self._next_day + 6, self.calendar.last_day)):
            self._live_through(day)
            promote = self._pending("promote")
            if promote:
                break
        self._must(promote is not None, "the rollout of the challenger did not end in a decision to promote")
        assert promote is not None
        next_day = self.calendar.last_day if promote is None else day + 1
        self.commands.tidewheel("approve", promote["id"], "--reason", "the canary's numbers are good")
        self._wait_for(f"version {version} to be champion", lambda seen: seen if seen["champion"] == version else None)
        for day in range(next_day, min(next_day + self.calendar.days_after, self.calendar.last_day)):
            self._live_through(day)
        reply = self._ask()
        self._must(str(reply["model_version"]) == version, f"version {version} is champion, {reply} answered")
        failed = sum(day["n_failed"] for day in self.days)
        self._must(failed == 0, f"{failed} requests failed")
        self.figures["rollout"] = {"decision": promote["id"], "reply": reply}
        return f"version {version} is champion, 0 of {sum(d['n_requests'] for d in self.days):,} requests failed"

    def _roll_back(self) -> str:
        rolled = self.commands.tidewheel("rollback", "--reason", "to show that it works")
        reply = self._ask()
        first = str(self.figures["first_version"]["version"])
        self._must(str(reply["model_version"]) == first, f"rolled back to version {first}, {reply} answered")
        self.screen.version = f"version {first}"
        self.figures["rollback"] = {"reply": reply, **rolled}
        return f"version {first} answers again"

    # -- the world and its people --------------------------------------------------------------------------------

    def _live_through(self, day: int) -> list[str]:
        """One day: its events and the labels that arrive, then its requests.

        Meanwhile the monitor that the day before made due is waited for; its findings are returned.
        """
        folder = self.data / f"day-{day:03d}"
        self.screen.day = f"{day - self.calendar.history_days + 1}"
        with ThreadPoolExecutor(max_workers=1) as feed:
            fed = feed.submit(self._ingest, folder)
            seen = self._monitored_until(midnight(day - 1)) if self.days else self._status()
            fed.result()
        asked = self.commands.tidewheel("predict", "--rows", str(folder / "requests.parquet"), "--rate", str(RATE_RPS))
        self.seen = seen
        findings = [f"{finding['reason']}: {finding['message']}" for finding in seen["findings"]]
        outcome = {key: (seen["monitor"] or {}).get(key) for key in ("n_predictions", "n_labels_mature", "report")}
        self.days.append({"day": day, "findings": findings, **asked, **outcome})
        self.screen.n_requests += asked["n_requests"]
        self.screen.n_failed += asked["n_failed"]
        self._say_what_is_new(midnight(day - 1), findings)
        return findings

    def _monitored_until(self, as_of: str) -> dict[str, Any]:
        """What `status` says once the policy was asked about ``as_of``."""
        return self._wait_for(
            f"the monitor of {as_of[:10]}",
            lambda seen: seen if seen["last_runs"].get("retrain", "") >= as_of else None,
        )

    def _say_what_is_new(self, as_of: str, findings: list[str]) -> None:
        before = {line.split(":")[0] for line in self.days[-2]["findings"]} if len(self.days) > 1 else set()
        for reason in dict.fromkeys(line.split(":")[0] for line in findings):
            if reason not in before:
                first = next(line for line in findings if line.startswith(reason))
                more = sum(line.startswith(reason) for line in findings) - 1
                self.screen.say(f"  {as_of[:10]}  {first}" + (f" and {more} more" if more else ""))

    def _ingest(self, folder: Path) -> dict[str, Any]:
        sources = [
            argument
            for name in ("transactions", "labels", "profiles")
            for argument in ("--source", f"{name}={folder / name}.parquet")
        ]
        return self.commands.tidewheel("ingest", *sources, "--wait")

    def _ask(self) -> dict[str, Any]:
        request = {
            "tx_id": 999_000_000_000, "customer_id": 3, "terminal_id": 17,
            "tx_time": self._status()["as_of"], "amount": 31.5, "channel": "online",
        }  # fmt: skip
        return self.commands.tidewheel("predict", "--request", json.dumps(request))

    def _status(self) -> dict[str, Any]:
        seen = self.commands.tidewheel("status")
        self.screen.event_time = str(seen["as_of"] or "-")[:19].replace("T", " ")
        self.screen.findings = [finding["reason"] for finding in seen["findings"]]
        if seen["champion"]:
            rollout = f", {seen['rollout']}" if seen["rollout"] else ""
            self.screen.version = f"version {seen['champion']}{rollout}"
        return seen

    def _wait_for(self, what: str, found: Callable[[dict[str, Any]], dict[str, Any] | None]) -> dict[str, Any]:
        pause = threading.Event()
        for _ in range(LOOKS_AT_MOST):
            if (answer := found(self._status())) is not None:
                return answer
            self.screen.doing = f"waiting for {what}"
            pause.wait(LOOK_EVERY_S)
        raise StepFailed(f"waited for {what} in vain; see 'tidewheel logs' of {self.commands.project}")

    def _pending(self, kind: str) -> dict[str, Any] | None:
        decisions = self.seen["decisions"]
        return next((d for d in decisions if d["kind"] == kind and d["state"] == "pending"), None)

    def _decision(self, action: str, reason: str) -> dict[str, Any]:
        for decision in self.seen["decisions"]:
            if decision["action"] == action and decision["findings"][0]["reason"] == reason:
                return dict(decision)
        raise StepFailed(f"no decision to {action} because of {reason} was recorded")

    def _must(self, true: bool, otherwise: str) -> None:
        if not true:
            raise StepFailed(otherwise)


def _executed(seen: dict[str, Any], decision: str) -> dict[str, Any] | None:
    found = next((d for d in seen["decisions"] if d["id"] == decision), None)
    return found if found and found["state"] == "executed" else None


def _estimate(metric: dict[str, Any]) -> str:
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
