"""Spark in this process, one for all tests of a run; it starts with the first and ends with the run."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest


def need_spark() -> Any:
    """The engine, or a skip that says what to install."""
    pytest.importorskip("pyspark", reason="pyspark is not installed; install tidewheel[spark]")
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        pytest.skip("Java is not installed; Spark needs Java 17 or 21")
    from tidewheel.adapters.spark_features import SparkFeatures

    return SparkFeatures(threads=2)
