"""A runtime for MLServer that reads its features by the Feast SDK.

The parameters of model-settings.json: ``uri`` is the model's file, ``extra`` has ``feast`` (the folder of
feature_store.yaml) and ``features`` (references in the model's order).
"""

import numpy as np
import xgboost
from feast import FeatureStore
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class CardFraud(MLModel):
    async def load(self) -> bool:
        told = self.settings.parameters.extra
        self.store = FeatureStore(repo_path=told["feast"])
        self.features = told["features"]
        self.columns = [reference.replace(":", "__") for reference in self.features]
        self.booster = xgboost.Booster(params={"nthread": 1}, model_file=self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        ids = {one.name: NumpyCodec.decode_input(one).ravel().tolist() for one in payload.inputs}
        entities = [dict(zip(ids, row, strict=True)) for row in zip(*ids.values(), strict=True)]
        told = self.store.get_online_features(self.features, entities, full_feature_names=True).to_dict()
        rows = np.array([told[column] for column in self.columns], dtype=np.float64).T
        scores = self.booster.inplace_predict(rows)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("score", scores)])
