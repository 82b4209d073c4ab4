"""features.py is checked as a whole: every mistake at once, each with its line."""

from __future__ import annotations

import pytest

from tidewheel.errors import NotFound, SpecError
from tidewheel.features.load import load_features, parse_features
from tidewheel.spec.load import parse_project
from unit.features.samples import FEATURES, SPEC, every_features, sample_features, sample_project

HEAD = "from tidewheel.features import *\n"


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_features(text if "import" in text else HEAD + text, "features.py", sample_project())
    return [str(problem) for problem in caught.value.problems]


def test_features_are_named_by_window_and_ordered_as_declared():
    features = sample_features()
    assert [view.name for view in features.views] == ["card", "others", "judged", "profile", "is_dear"]
    assert features.names[:4] == ("n_10m", "n_1h", "n_online_10m", "n_online_1h")
    assert features.names[-6:] == ("judged_1d", "fraud_ratio_1h", "fraud_ratio_1d", "age", "vip", "is_dear")
    assert dict(zip(features.names, features.dtypes, strict=True))["vip"] == "bool"
    assert dict(zip(features.names, features.defaults, strict=True))["usual_1h"] == -1.0
    assert dict(zip(features.names, features.sources, strict=True))["is_dear"] == "request"
    assert features.freshness_us[0] == 5_000_000
    assert len(features.states) == 4


def test_a_comment_is_no_change_and_a_constant_is_one():
    project = sample_project()
    digest = parse_features(FEATURES, "features.py", project).digest
    assert parse_features(FEATURES + "\n# a remark\n", "features.py", project).digest == digest
    assert parse_features(FEATURES.replace("2 * usual", "3 * usual"), "features.py", project).digest != digest
    assert parse_features(FEATURES.replace("default=-1.0", "default=-2.0"), "x", project).digest != digest


def test_each_view_has_a_state_and_a_changed_declaration_a_new_one():
    project = sample_project()
    two = 'a = windowed("payments", by="card", windows=["1h"], features={"a": count()})\n' \
          'b = windowed("payments", by="card", windows=["1h"], features={"b": count()})\n'  # fmt: skip
    before = parse_features(HEAD + two, "features.py", project).states
    longer = two.replace('windows=["1h"], features={"b"', 'windows=["2h"], features={"b"')
    after = parse_features(HEAD + longer, "features.py", project).states
    assert len({state.state_id for state in before}) == 2
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param('precision="hop"', 'precision="exact"', id="precision"),
        pytest.param('precision="hop"', 'precision="hop", hop="10m"', id="hop"),
        pytest.param('precision="hop"', 'precision="hop", dedup_for="1h"', id="how long ids are remembered"),
        pytest.param('["1h", "2h"]', '["1h", "3h"]', id="a window"),
        pytest.param('precision="hop"', 'precision="hop", delay="1h"', id="a delay"),
        pytest.param("default=0.0", "default=1.0", id="a default"),
        pytest.param('mean("amount"', 'max("amount"', id="an aggregation"),
        pytest.param('"items": 2', '"items": 3', id="the value of a filter"),
        pytest.param('among={"items": 2}', 'among={"channel": "x"}', id="among which events"),
        pytest.param('by="card"', 'by=["card", "shop"]', id="keys"),
        pytest.param("allowed_lateness: 10m", "allowed_lateness: 20m", id="lateness"),
        pytest.param("amount: float64", "amount: float32", id="a column's type"),
        pytest.param("topic: payments", "topic: paid", id="the topic"),
    ],
)
def test_whatever_changes_a_value_or_the_state_makes_a_new_state(before, after):
    spec, text = (
        SPEC,
        HEAD
        + (
            'v = windowed("payments", by="card", windows=["1h", "2h"], precision="hop", features={\n'
            '  "a": mean("amount", default=0.0), "b": ratio({"channel": "online"}, among={"items": 2})})\n'
        ),
    )
    assert before in spec + text
    changed = spec.replace(before, after), text.replace(before, after)
    one, other = (parse_features(features, "features.py", parse_project(project, "project.yaml"))
                  for project, features in ((spec, text), changed))  # fmt: skip
    assert one.states[0].state_id != other.states[0].state_id
    assert one.digest != other.digest


def test_an_owner_or_a_description_is_no_new_state():
    project = sample_project()
    text = HEAD + 'v = windowed("payments", by="card", windows=["1h"], features={"a": count()})\n'
    told = text.replace("features=", 'owner="cards", description="How busy a card is.", features=')
    one, other = (parse_features(given, "features.py", project) for given in (text, told))
    assert one.states[0].state_id == other.states[0].state_id
    assert (one.owners, other.owners) == (("tests",), ("cards",))
    assert other.descriptions == ("How busy a card is.",)


def test_a_label_is_late_by_its_delay_unless_its_source_says_otherwise():
    features = every_features()
    ruled = next(state for state in features.states if state.view == "ruled")
    assert ruled.tiles is not None
    assert ruled.tiles.lateness_us == 2 * 3_600_000_000
    assert ruled.dedup_us == 86_400_000_000


def test_the_type_of_a_feature_follows_its_column():
    features = every_features()
    dtypes = dict(zip(features.names, features.dtypes, strict=True))
    assert [dtypes[name] for name in ("pair_points_5h", "pair_last_5h", "pair_first_5h", "ruled_last_12h", "pair_n_5h",
                                      "pair_usual_5h", "quiet_since_3h", "ruled_frauds_12h")] == [
        "int64", "float64", "int64", "bool", "int64", "float64", "float64", "int64"]  # fmt: skip
    states = {state.view: state for state in features.states}
    assert states["pair"].published == tuple((n, dtypes[n]) for n in features.names if n.startswith("pair_"))
    assert states["pair"].keys == (("card", "string"), ("shop", "int64"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            'v = windowed("payment", by="user", windows=["1x"], features={\n  "n": count(),\n})\n',
            [
                "features.py:2: v: unknown entity 'user'; declared are card, shop",
                "features.py:2: v: unknown source 'payment'; declared are payments, labels, profiles",
                "features.py:2: v: window '1x' must be a number with a unit: ms, s, m, h or d, such as 50ms, 10m or "
                "7d (got '1x')",
            ],
            id="unknown names and a bad window, all at once",
        ),
        pytest.param(
            'v = windowed("payments", by="card", windows=["1h"], features={\n'
            '  "a": mean("amuont"),\n  "b": sum("channel"),\n  "c": count(where={"channel": 1}),\n'
            '  "d": count(where="channel = 1"),\n  "e": mean("amount", default="x"),\n  "f": 7,\n})\n',
            [
                "features.py:2: v: 'f' must be an aggregation such as count() (got 7)",
                "features.py:3: v.a: unknown column 'amuont'; 'payments' declares amount, channel, items",
                "features.py:4: v.b: sum needs numbers, column 'channel' is a string",
                "features.py:5: v.c: column 'channel' is a string and cannot equal 1",
                "features.py:6: v.d: where must map columns to the value they equal",
                "features.py:7: v.e: default must be a finite number (got 'x')",
            ],
            id="each wrong aggregation on its own line",
        ),
        pytest.param(
            'v = windowed("payments", by=["card", "card", "user"], windows=["7m"], precision="hop", max_events=5,\n'
            '  include_request=True, dedup_for="1m", features={\n'
            '  "a": distinct("channel"),\n  "b": time_since_last(),\n  "c": last("channel"),\n'
            '  "d": ratio({}),\n  "e": ratio({"chanel": "x"}, among={"items": "2"}),\n})\n'
            'w = windowed("payments", by=[], windows=["7m", "1h"], precision="hop", features={"m": count()})\n'
            'x = windowed("payments", by="card", windows=["1h"], hop="1m", max_events=0, dedup_for="9d", owner=1,\n'
            '  features={"o": count()})\n'
            'y = windowed("payments", by="card", windows=["30d"], precision="hop", hop="1m", features={"p": count()})\n'
            'z = windowed("payments", by="card", windows=["1h"], precision="hop", hop="1s", features={"q": count()})\n'
            'a = windowed("payments", by="card", windows=["1h"], precision="tiles", features={"r": count()})\n',
            [
                "features.py:2: v: dedup_for must be at least the allowed lateness 10m (got '1m')",
                "features.py:2: v: entity 'card' is listed twice",
                "features.py:2: v: max_events is for precision='exact'; hop holds any number of events",
                "features.py:2: v: unknown entity 'user'; declared are card, shop",
                "features.py:4: v.a: distinct needs precision='exact'; tiles cannot hold it",
                "features.py:5: v.b: time_since_last and include_request exclude each other: it would be 0",
                "features.py:6: v.c: last needs numbers, column 'channel' is a string",
                "features.py:7: v.d: where must map columns to the value they equal",
                "features.py:8: v.e: column 'items' is a int32 and cannot equal '2'",
                "features.py:8: v.e: unknown column 'chanel'; 'payments' declares amount, channel, items",
                "features.py:10: w: by must name an entity, or list several",
                "features.py:10: w: window '7m' must be a multiple of its hop 5m; declare another hop",
                "features.py:11: x: dedup_for must be at most 49h, as long as events are kept (got '9d')",
                "features.py:11: x: hop='1m' needs precision='hop'",
                "features.py:11: x: max_events must be a whole number from 1 to 1,000,000 (got 0)",
                "features.py:11: x: owner must be text (got 1)",
                "features.py:13: y: window '30d' has more than 10,000 hops of 1m; declare a longer hop",
                "features.py:14: z: hop must be at least 30s (got '1s')",
                "features.py:15: a: precision must be 'exact' or 'hop' (got 'tiles')",
            ],
            id="precisions and keys that do not fit",
        ),
        pytest.param(
            'v = windowed("labels", by="card", windows=["1h"], include_request=True, delay="1h",\n'
            '  features={"n": count()})\n',
            [
                "features.py:2: v: include_request and delay exclude each other: the request is not old yet",
                "features.py:2: v: include_request needs the request's own source 'payments' (got 'labels')",
            ],
            id="include_request elsewhere than on the request's source",
        ),
        pytest.param(
            'v = windowed("payments", by="card", windows=["1h"], features={"n": count()})\n'
            'w = windowed("payments", by="shop", windows=["1h"], features={"n": count()})\n'
            "@request\ndef amount(channel):\n    return channel == 'x'\n",
            [
                "features.py:3: two features are called 'n_1h'; the other is on line 2",
                "features.py:4: a feature cannot be called 'amount': that is a field of the request",
            ],
            id="two features of one name",
        ),
        pytest.param(
            "@request\ndef a(b):\n    return b\n@request\ndef b(a):\n    return a\n@request\ndef c(c):\n    return c\n",
            [
                "features.py:2: a: unknown argument 'b'; an argument is a request field or a feature declared above: "
                "card, shop, at, payment, amount, channel, items",
                "features.py:8: c: a function cannot be its own argument",
            ],
            id="functions that need each other",
        ),
        pytest.param(
            "@request\ndef scalar(amount):\n    return 1.0\n@request\ndef text(channel):\n    return channel\n"
            "@request\ndef fails(amount):\n    return amount.nothing\n@request\ndef odd(*amount):\n    return amount\n",
            [
                "features.py:2: scalar: must return one value per row (got shape () for 0 rows); use vectorised NumPy "
                "functions",
                "features.py:5: text: must return numbers or bool (got object)",
                "features.py:8: fails: fails on an empty batch of rows: AttributeError: 'numpy.ndarray' object has no "
                "attribute 'nothing'",
                "features.py:11: odd: argument 'amount' must be plain: a request field or a feature, by name",
            ],
            id="functions that are not vectorised",
        ),
        pytest.param(
            'p = batch("profiles", by="card", columns=["age", "size"], ttl="soon", freshness="1s")\n'
            'q = batch("payments", by="card", columns=["channel"], ttl="1d")\n',
            [
                "features.py:2: p: freshness must be at least 2s: progress is told once a second (got '1s')",
                "features.py:2: p: ttl must be a number with a unit: ms, s, m, h or d, such as 50ms, 10m or 7d "
                "(got 'soon')",
                "features.py:2: p: unknown column 'size'; 'profiles' declares age, vip",
                "features.py:3: q: column 'channel' is a string; a model input must be a number or bool",
            ],
            id="batch views",
        ),
        pytest.param(
            'windowed("payments", by="card", windows=["1h"], features={"n": count()})\n'
            'a = b = windowed("payments", by="card", windows=["1h"], features={"m": count()})\n',
            [
                "features.py:2: this view has no name or lost it; assign it to a variable of its own",
                "features.py:3: one view has several names (a, b)",
            ],
            id="views without a name of their own",
        ),
        pytest.param("x = 1 +\n", ["features.py:2: not valid Python: invalid syntax"], id="syntax error"),
        pytest.param("\nx = 1 / 0\n", ["features.py:3: ZeroDivisionError: division by zero"], id="an exception"),
        pytest.param("raise SystemExit(3)\n", ["features.py:2: SystemExit: 3"], id="an exit"),
        pytest.param(
            "v = windowed('payments', windows=['1h'], features={})\n",
            ["features.py:2: TypeError: windowed() missing 1 required keyword-only argument: 'by'"],
            id="a wrong call",
        ),
        pytest.param(
            "x = 1\n",
            ["features.py: declares no feature; declare at least one windowed or batch view or @request function"],
            id="nothing declared",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(text, expected):
    assert problems(text) == expected


def test_a_label_in_the_request_source_is_not_known_to_a_request():
    spec = SPEC.replace("items: int32", "items: int32, is_fraud: bool").replace(
        "label: {source: labels", "label: {source: payments"
    )
    project = parse_project(spec, "project.yaml")
    text = HEAD + (
        'v = windowed("payments", by="card", windows=["1h"], include_request=True, features={\n'
        '  "bad": mean("is_fraud"),\n})\n@request\ndef f(is_fraud):\n    return is_fraud\n'
    )
    with pytest.raises(SpecError) as caught:
        parse_features(text, "features.py", project)
    assert [(problem.line, problem.message.split(";")[0]) for problem in caught.value.problems] == [
        (3, "v.bad: 'is_fraud' is the label, which a request does not know"),
        (5, "f: unknown argument 'is_fraud'"),
    ]


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(NotFound, match=r"features\.py: no such file; declare at least one feature"):
        load_features(tmp_path, sample_project())
