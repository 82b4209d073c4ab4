"""Write golden.json again from the oracle, after a change of meaning that was decided:

PYTHONPATH=tests python -m unit.features.make_golden
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from unit.features.naive import naive_values
from unit.features.samples import MINUTE_US, START_US, every_features

GOLDEN = Path(__file__).parent / "golden.json"
ODD_POINTS = [None, 2**63 - 1, -(2**63), 0, -1]


def made() -> dict[str, Any]:
    """Events with ties, duplicates, disorder, nulls and edges of windows, and rows that ask about them."""
    draw = random.Random(4)

    def payment(number: int) -> dict[str, Any]:
        return {
            "card": draw.choice(["a", "ü", ""]),
            "shop": draw.choice([1, -7]),
            "t": START_US + draw.randrange(60) * 5 * MINUTE_US + draw.choice([0, 0, 0, 1, -1]),
            "id": f"p{number}",
            "amount": draw.choice([None, 0.0, 0.1, 2.5, 10.0, -3.25, 1e6]),
            "channel": draw.choice(["online", "shop", None]),
            "items": draw.choice([None, 0, 1, 2, 3]),
            "points": draw.choice([*ODD_POINTS, *range(-5, 20)]),
        }

    payments = [payment(number) for number in range(60)]
    payments += [{**draw.choice(payments), "amount": 99.0} for _ in range(6)]  # duplicates that differ
    draw.shuffle(payments)
    labels = [
        {"card": p["card"], "shop": p["shop"], "t": p["t"], "id": p["id"], "is_fraud": draw.choice([None, True, False])}
        for p in draw.sample(payments, 30)
    ]
    profiles = [
        {"card": draw.choice(["a", "ü"]), "t": START_US + draw.randrange(300) * MINUTE_US,
         "age": draw.choice([None, 18, 44, 71]), "vip": draw.random() < 0.5} for _ in range(12)
    ]  # fmt: skip
    first = {p["id"]: p for p in reversed(payments)}
    rows = [first[number] for number in draw.sample(sorted(first), 12)] + [payment(100 + n) for n in range(8)]
    rows += [{**rows[0], "t": START_US + 300 * MINUTE_US, "id": "late"}]
    events = {"payments": payments, "labels": labels, "profiles": profiles}
    return {"events": events, "rows": rows, "values": naive_values(every_features(), rows, events)}


if __name__ == "__main__":
    text = json.dumps(made(), ensure_ascii=False, separators=(",", ":"))
    GOLDEN.write_text(text.replace("},{", "},\n{").replace('],"', '],\n"') + "\n")
