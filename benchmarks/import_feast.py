"""What a server with the Feast SDK inside imports before it can listen."""

from benchmarks.children import measured


def work() -> object:
    from feast import FeatureStore

    return FeatureStore


if __name__ == "__main__":
    measured(work)
