"""``python -m tidewheel.apps.bootstrap secrets|stores|wait|uninstall``: what an installation needs once, by plain Jobs.

``secrets`` makes passwords and the signing key where they are not there yet, so that no render of the chart holds
one and none is changed by an upgrade. ``stores`` makes databases, their users and the bucket. ``wait`` lets a pod's
start wait for its database. ``uninstall`` sees ModelProjects off while the controller still lives. All are safe to
run again.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping

from tidewheel.adapters.kubernetes_api import KubernetesApi, Object
from tidewheel.adapters.kubernetes_projects import API, CONFIRM_DELETE
from tidewheel.adapters.object_store import open_object_store
from tidewheel.adapters.postgres_databases import answers, make_database
from tidewheel.apps.log_lines import set_up_log
from tidewheel.bundle.signature import SigningKey
from tidewheel.errors import Conflict, InputError, NotFound, TidewheelError, Unavailable
from tidewheel.reconcile.objects.settings import KIND

LOG = logging.getLogger("tidewheel.bootstrap")
PAUSE_S = 2.0
PASSWORD_BYTES = 24
MANAGER = "tidewheel-bootstrap"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tidewheel.apps.bootstrap", description=__doc__)
    parser.add_argument("what", choices=["secrets", "stores", "wait", "uninstall"])
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--name", default="tidewheel", help="prefix of the objects' names (default: %(default)s)")
    parser.add_argument("--database", action="append", default=[], help="to make, with a user of its name")
    parser.add_argument("--signing-key", action="store_true", help="make a key pair that signs bundles, too")
    parser.add_argument("--delete-projects", action="store_true", help="at uninstall; else it refuses where one is")
    parser.add_argument("--timeout-s", type=float, default=600.0)
    given = parser.parse_args()
    set_up_log("json")
    steps: Mapping[str, Callable[[], None]] = {
        "secrets": lambda: make_secrets(KubernetesApi(), given.namespace, given.name, signing_key=given.signing_key),
        "stores": lambda: make_stores(given.database),
        "wait": lambda: wait_for_databases(given.database),
        "uninstall": lambda: see_projects_off(KubernetesApi(), given.namespace, delete=given.delete_projects),
    }
    return _until_done(steps[given.what], given.timeout_s)


def _until_done(step: Callable[[], None], timeout_s: float) -> int:
    """Neighbours that start at the same time may not answer yet."""
    pause, said = threading.Event(), ""
    for _ in range(max(1, int(timeout_s / PAUSE_S))):
        try:
            step()
        except Unavailable as error:
            if str(error) != said:
                said = str(error)
                LOG.info("event=waiting error=%s", said)
            pause.wait(PAUSE_S)
        except TidewheelError as error:
            LOG.error("event=failed error=%s", error)
            return 1
        else:
            LOG.info("event=done")
            return 0
    LOG.error("event=failed error=not done after %g s: %s", timeout_s, said)
    return 1


# -- secrets ----------------------------------------------------------------------------------------------------------


def make_secrets(api: KubernetesApi, namespace: str, name: str, *, signing_key: bool) -> None:
    """``<name>-stores`` is for the stores themselves, ``-secrets`` for every pod that uses them, ``-control`` only for
    the controller and jobs; ``-signing-key`` and its ``-trusted-keys``."""
    s3_key, s3_secret = secrets.token_hex(10), secrets.token_urlsafe(PASSWORD_BYTES)
    admin = secrets.token_urlsafe(PASSWORD_BYTES)
    users = {
        f"TIDEWHEEL_{user}_PASSWORD": secrets.token_urlsafe(PASSWORD_BYTES)
        for user in ("JOURNAL", "REDIS", "MLFLOW_DATABASE", "AIRFLOW_DATABASE", "POSTGRES")
    }
    identity = {
        "name": "tidewheel",
        "credentials": [{"accessKey": s3_key, "secretKey": s3_secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    _make_secret(api, namespace, f"{name}-stores", {"s3.json": json.dumps({"identities": [identity]}), **users})
    stores = _read_secret(api, namespace, f"{name}-stores")
    # What pods get is made of what the stores have, so that a run that ended between the two is continued.
    credentials = json.loads(stores["s3.json"])["identities"][0]["credentials"][0]
    _make_secret(api, namespace, f"{name}-secrets", {
        "AWS_ACCESS_KEY_ID": credentials["accessKey"],
        "AWS_SECRET_ACCESS_KEY": credentials["secretKey"],
        "TIDEWHEEL_REDIS_PASSWORD": stores["TIDEWHEEL_REDIS_PASSWORD"],
    })  # fmt: skip
    _make_secret(api, namespace, f"{name}-control", {
        "TIDEWHEEL_JOURNAL_PASSWORD": stores["TIDEWHEEL_JOURNAL_PASSWORD"],
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": admin,
    })  # fmt: skip
    _make_secret(api, namespace, f"{name}-mlflow", {"MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32)})
    _make_secret(api, namespace, f"{name}-airflow", {
        "fernet-key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "jwt-secret": secrets.token_urlsafe(64),
        "api-secret-key": secrets.token_urlsafe(32),
        "passwords.json": json.dumps({"admin": secrets.token_urlsafe(PASSWORD_BYTES)}),
    })  # fmt: skip
    if signing_key:
        _make_signing_key(api, namespace, name)


def _make_signing_key(api: KubernetesApi, namespace: str, name: str) -> None:
    _make_secret(api, namespace, f"{name}-signing-key", {"signing.pem": SigningKey.make().pem.decode()})
    pem = _read_secret(api, namespace, f"{name}-signing-key")["signing.pem"]
    public = SigningKey.from_pem(pem.encode(), f"{name}-signing-key").public
    # Merged into what is there: a team's other keys stay.
    api.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{name}-trusted-keys", "namespace": namespace, "labels": _labels(name)},
            "data": {f"{public.fingerprint[:16]}.pem": public.pem.decode()},
        },
        MANAGER,
    )


def _make_secret(api: KubernetesApi, namespace: str, name: str, data: Mapping[str, str]) -> None:
    """As it is where it is there; a key that it lacks is added, so that a newer chart finds what it needs."""
    wanted: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": _labels(name)},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    try:
        api.create(wanted)
        LOG.info("event=secret_made name=%s keys=%d", name, len(data))
    except Conflict:
        there = api.get("v1", "Secret", namespace, name).get("data", {})
        missing = {key: value for key, value in wanted["data"].items() if key not in there}
        if missing:
            api.merge("v1", "Secret", namespace, name, {"data": missing})
            LOG.info("event=secret_completed name=%s keys=%s", name, ",".join(sorted(missing)))


def _read_secret(api: KubernetesApi, namespace: str, name: str) -> dict[str, str]:
    data = api.get("v1", "Secret", namespace, name).get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "tidewheel", "app.kubernetes.io/managed-by": MANAGER}


# -- stores -----------------------------------------------------------------------------------------------------------


def make_stores(databases: list[str]) -> None:
    """Databases by the superuser of TIDEWHEEL_POSTGRES_URL, each with a user of its name whose password is
    TIDEWHEEL_<NAME>_DATABASE_PASSWORD (the journal's: TIDEWHEEL_JOURNAL_PASSWORD); and the bucket."""
    for name in databases:
        make_database(
            os.environ["TIDEWHEEL_POSTGRES_URL"], os.environ["TIDEWHEEL_POSTGRES_PASSWORD"], name, _password(name)
        )
        LOG.info("event=database_ready name=%s", name)
    store = open_object_store()
    if store is not None:
        store.make_bucket()
        LOG.info("event=bucket_ready name=%s", store.name)


def wait_for_databases(databases: list[str]) -> None:
    """Raises Unavailable until each lets its user in."""
    for name in databases:
        if not answers(os.environ["TIDEWHEEL_POSTGRES_URL"], name, _password(name)):
            raise Unavailable(f"database {name} does not let its user in yet")


# -- uninstall --------------------------------------------------------------------------------------------------------


def see_projects_off(api: KubernetesApi, namespace: str, *, delete: bool) -> None:
    """Until no ModelProject is left. Raises InputError where there is one and ``delete`` is not set, Unavailable while
    the controller has not let go of one."""
    try:
        left = api.list(API, KIND, namespace)
    except NotFound:  # the CRD is gone, and all of them with it
        return
    names = sorted(one["metadata"]["name"] for one in left)
    if left and not delete:
        raise InputError(
            f"ModelProjects are still there: {', '.join(names)}. Delete them first, while the controller runs "
            f"(kubectl -n {namespace} delete modelprojects --all), or set uninstall.deleteProjects"
        )
    for one in left:
        if "deletionTimestamp" in one["metadata"]:
            continue
        name = one["metadata"]["name"]
        with contextlib.suppress(NotFound):
            api.merge(API, KIND, namespace, name, {"metadata": {"annotations": {CONFIRM_DELETE: "true"}}})
            api.delete(API, KIND, namespace, name)
            LOG.info("event=project_deleted name=%s", name)
    if left:
        raise Unavailable(f"the controller has not let go of {', '.join(names)} yet; its log says why")


def _password(database: str) -> str:
    key = "JOURNAL" if database == "tidewheel" else f"{database.upper()}_DATABASE"
    try:
        return os.environ[f"TIDEWHEEL_{key}_PASSWORD"]
    except KeyError:
        raise NotFound(f"TIDEWHEEL_{key}_PASSWORD is not set") from None


if __name__ == "__main__":
    sys.exit(main())
