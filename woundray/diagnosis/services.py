"""Checks of the services that a study uses: model hub, MLflow, Ray cluster and two ports. Nothing is changed."""

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

MLFLOW_PORT = 5000  # of `mlflow ui` without --port

_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Service:
    """A service at an address.

    Attributes:
        answers: whether it answers; None where it was not checked.
        note: the result of the check in words.
    """

    address: str
    answers: bool | None
    note: str


@dataclass(frozen=True)
class RayCluster:
    """The cluster at RAY_ADDRESS.

    Attributes:
        resources: None where it does not answer; `note` has the reason.
    """

    address: str
    resources: Resources | None
    note: str = ""


@dataclass(frozen=True)
class Services:
    """Results of all checks.

    Attributes:
        cluster: None: a study starts a cluster of its own on this machine.
        dashboard_port: port that its dashboard would get now; None: no port is free, or RAY_ADDRESS names a cluster.
        mlflow_port_free: whether `mlflow ui` without --port could start.
    """

    hub: Service
    mlflow: Service
    cluster: RayCluster | None
    dashboard_port: int | None
    mlflow_port_free: bool


JoinCluster = Callable[[], Resources]


def check_services(*, dashboard_port: int, join: JoinCluster) -> Services:
    """Check all services; a few seconds at most for one that does not answer.

    Args:
        dashboard_port: first choice for the Ray dashboard.
        join: joins the cluster at RAY_ADDRESS and returns its resources; UserError if it does not answer.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    cluster = _check_cluster(address, join) if address not in ("", "local") else None
    return Services(
        hub=_check_hub(),
        mlflow=_check_mlflow(),
        cluster=cluster,
        dashboard_port=_next_port(dashboard_port) if cluster is None else None,
        mlflow_port_free=is_free(MLFLOW_PORT),
    )


def join_cluster() -> Resources:
    """Join the cluster at RAY_ADDRESS as a study does, leave it, and return its resources."""
    from woundray.ray_cluster.connection import cluster

    with cluster(dashboard_port=0) as joined:
        return joined.resources


def _check_hub() -> Service:
    from huggingface_hub.constants import ENDPOINT  # HF_ENDPOINT, else the hub itself

    if offline():
        return Service(ENDPOINT, None, "HF_HUB_OFFLINE is set: never asked")
    return _check_http(ENDPOINT)


def _check_mlflow() -> Service:
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


def _check_http(address: str) -> Service:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_TIMEOUT_S):
            return Service(address, True, "answers")
    except urllib.error.HTTPError as error:  # an answer; it may require a name and password
        return Service(address, True, f"answers {error.code} {error.reason}")
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return Service(address, False, f"no answer: {reason}")


def _check_cluster(address: str, join: JoinCluster) -> RayCluster:
    try:
        return RayCluster(address, join())
    except UserError as error:
        return RayCluster(address, None, str(error))


def _next_port(first: int) -> int | None:
    try:
        return next_free_port(first)
    except UserError:
        return None
