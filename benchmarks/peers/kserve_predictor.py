"""KServe's predictor: an XGBoost model behind the SDK's server, as KServe's own XGBoost server is.

    python kserve_predictor.py --model_name NAME --http_port PORT --grpc_port PORT MODEL_FILE

Both protocols. A DMatrix per request and one thread, on the event loop.
"""

import argparse

import kserve
import xgboost
from kserve.utils.utils import get_predict_input, get_predict_response


class Trees(kserve.Model):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.booster = xgboost.Booster(params={"nthread": 1}, model_file=path)
        self.ready = True

    def predict(self, payload, headers=None):
        rows = xgboost.DMatrix(get_predict_input(payload), nthread=1)
        return get_predict_response(payload, self.booster.predict(rows), self.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument("model_file")
    given, _ = parser.parse_known_args()
    kserve.ModelServer().start([Trees(given.model_name, given.model_file)])
