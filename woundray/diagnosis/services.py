"""What a study talks to: the model hub, MLflow, a Ray cluster, two ports. Each is asked, and nothing is changed."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from woundray.errors import UserError
from woundray.ray_cluster.nodes import Resources
from woundray.system.ports import is_free, next_free_port
from woundray.system.redaction import redact
from woundray.tracking.address import database_of, is_server, tracking_uri, unavailable_reason
from woundray.weights.repositories import offline

MLFLOW_PORT = 5000  # of a bare `mlflow ui`

_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Service:
    """Something at an address.

    Attributes:
        answers: None where it was not asked.
        note: in words, why or what of it.
    """

    address: str
    answers: bool | None
    note: str


@dataclass(frozen=True)
class RayCluster:
    """The cluster that RAY_ADDRESS names.

    Attributes:
        resources: None where it does not answer; `note` says why.
    """

    address: str
    resources: Resources | None
    note: str = ""


@dataclass(frozen=True)
class Services:
    """Everything that was asked.

    Attributes:
        cluster: None: a study starts one of its own on this machine.
        dashboard_port: which the dashboard of that would get now; None: there is none left, or the cluster has one.
        mlflow_port_free: whether a bare `mlflow ui` could listen.
    """

    hub: Service
    mlflow: Service
    cluster: RayCluster | None
    dashboard_port: int | None
    mlflow_port_free: bool


Join = Callable[[], Resources]


def ask(*, dashboard_port: int, join: Join) -> Services:
    """Asks all of them, seconds at most where one does not answer.

    Args:
        dashboard_port: of the Ray dashboard.
        join: joins the cluster of RAY_ADDRESS and says what it offers; UserError if it does not answer.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    cluster = _cluster(address, join) if address not in ("", "local") else None
    return Services(
        hub=_hub(),
        mlflow=_mlflow(),
        cluster=cluster,
        dashboard_port=_next_port(dashboard_port) if cluster is None else None,
        mlflow_port_free=is_free(MLFLOW_PORT),
    )


def join_cluster() -> Resources:
    """Joins the cluster of RAY_ADDRESS as a study does, and leaves it."""
    from woundray.ray_cluster.connection import cluster

    with cluster(dashboard_port=0) as joined:
        return joined.resources


def _hub() -> Service:
    from huggingface_hub.constants import ENDPOINT  # HF_ENDPOINT, else the hub itself

    if offline():
        return Service(ENDPOINT, None, "HF_HUB_OFFLINE is set: never asked")
    return _http(ENDPOINT)


def _mlflow() -> Service:
    try:
        uri = tracking_uri()
    except UserError as error:
        return Service(redact(os.environ.get("MLFLOW_TRACKING_URI", "")), False, redact(str(error)))
    if is_server(uri):
        why = unavailable_reason(uri)
        return Service(redact(uri), not why, redact(why) or "answers")
    database = database_of(uri)
    if database is None or database.is_file():
        return Service(redact(uri), None, "")
    return Service(uri, None, "made by the first study")


def _http(address: str) -> Service:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_TIMEOUT_S):
            return Service(address, True, "answers")
    except urllib.error.HTTPError as error:  # an answer: it may want a name and password
        return Service(address, True, f"answers {error.code} {error.reason}")
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Service(address, False, f"no answer: {reason}")


def _cluster(address: str, join: Join) -> RayCluster:
    try:
        return RayCluster(address, join())
    except UserError as error:
        return RayCluster(address, None, str(error))


def _next_port(first: int) -> int | None:
    try:
        return next_free_port(first)
    except UserError:
        return None
