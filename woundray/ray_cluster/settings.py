"""Settings of Ray, each with its reason. Ray reads most of them from the environment when it is imported."""

import os
import sys
from collections.abc import Mapping
from functools import cache

_STUDY_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # cluster and dashboard can be used with the token only
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report takes as long as this interval; default 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process fewer per trial; of use on spot machines only
    "RAY_TRAIN_METRICS_ENABLED": "0",  # Prometheus counters of each worker, which nothing reads here
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables; woundray shows its own table of trials
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard copies of the journal
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C lets trials finish their epoch: see search/ctrl_c.py
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # hides all GPUs from processes that use none
}
_LOCAL_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: every socket of Ray is on 127.0.0.1
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",  # for a busy machine; default 60
    "RAY_prestart_worker_first_driver": "0",  # two workers without a runtime environment, which are never used here
    "RAY_worker_register_timeout_seconds": "300",  # the first workers wait for the fork server's imports; default 60
}
_LOCAL_WORKER_SETTINGS = {
    "GLOO_SOCKET_IFNAME": "lo",  # gradients between workers stay on the loopback device
    "NCCL_SOCKET_IFNAME": "lo",
}


@cache
def starts_own_cluster() -> bool:
    """Return whether a cluster is started on this machine; otherwise RAY_ADDRESS names the cluster to join."""
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


def configure_environment() -> None:
    """Set the environment variables that Ray reads when it is imported; values that the user has set are kept.

    Every program that uses Ray calls this before anything imports Ray; later calls change nothing.

    Raises:
        RuntimeError: Ray was imported before, and without these settings.
    """
    settings = _STUDY_SETTINGS | (_LOCAL_SETTINGS if starts_own_cluster() else {})
    missing = {name: value for name, value in settings.items() if name not in os.environ}
    if missing and "ray" in sys.modules:
        raise RuntimeError("Ray was imported too early: call configure_environment() before `import ray`")
    os.environ.update(missing)


def worker_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of Ray's workers; values that the user has set are kept.

    Args:
        variables: further ones, by name.
    """
    settings = {**_STUDY_SETTINGS, **variables}
    if starts_own_cluster():
        settings |= _LOCAL_SETTINGS | (_LOCAL_WORKER_SETTINGS if sys.platform == "linux" else {})
    return {name: os.environ.get(name, value) for name, value in settings.items()}
