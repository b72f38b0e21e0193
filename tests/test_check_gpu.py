"""The script that checks GPUs, where there is none: it says of each check what came of it."""

import sys
from pathlib import Path

import pytest


def test_a_dry_run_checks_says_what_it_can_not_and_catches_what_fails(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        import check_gpu
        from check_gpu_runs import Setup

        try:
            setup = Setup.make(tmp_path, dry=True)
            by_name = check_gpu.CHECKS
            rows = [
                check_gpu.check("overflow", by_name["fp16 bears an overflow"], setup),
                check_gpu.check("cards", by_name["two ranks on two GPUs (NCCL) are one"], setup),
                check_gpu.check("broken", lambda _: str(1 / 0), setup),
            ]
        finally:
            for name in [
                name for name in sys.modules if name.startswith("check_gpu") or name in ("turns", "random_model")
            ]:
                del sys.modules[name]
    assert [row.result for row in rows] == ["ok", "not checked", "FAILED"]
    assert rows[0].figure == "1 of 3 updates left out"
    assert rows[2].figure == "ZeroDivisionError: division by zero"
