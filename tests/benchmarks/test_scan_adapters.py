"""The adapters of public kernels, on stand-ins that check what they are given, and on the kernels' own references."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from griffin_core_torch import benchmark_scan_adapters, benchmark_scan_beside, benchmark_scans  # noqa: E402
from griffin_core_torch.benchmark_scan_beside import COMPARED, compare, peer_passes  # noqa: E402
from griffin_core_torch.benchmark_scan_peers import PEERS, as_it_is  # noqa: E402

SHAPE = (3, 64, 128)
NAMED = {peer.name: peer for peer in PEERS}
CHANNELS_FIRST = {(2, 64, 256), (3, 128, 64)}
TIME_FIRST = {COMPARED, SHAPE}


def looped(a: Tensor, x: Tensor) -> Tensor:
    """x_t + a_t h_{t-1} along dimension 1, in float32."""
    h, rows = torch.zeros_like(x[:, 0], dtype=torch.float32), []
    for t in range(x.shape[1]):
        h = a[:, t].float() * h + x[:, t].float()
        rows.append(h)
    return torch.stack(rows, 1).to(x.dtype)


def require(shapes: set[tuple[int, ...]], *arrays: Tensor) -> None:
    for x in arrays:
        assert tuple(x.shape) in shapes
        assert x.is_contiguous()


def accelerated(gates: Tensor, tokens: Tensor) -> Tensor:
    require(CHANNELS_FIRST, gates, tokens)
    assert gates.dtype == tokens.dtype
    assert gates.min() >= 0
    return looped(gates.mT, tokens.mT).mT.contiguous()


def hgrn(x: Tensor, g: Tensor, initial_state: None = None, output_final_state: bool = False) -> tuple[Tensor, None]:
    require(TIME_FIRST, x, g)
    assert g.max() <= 0
    return looped(g.exp(), x), None


def selective(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    require(CHANNELS_FIRST, u, delta)
    require({(64, 1), (128, 1)}, A, B, C)
    assert {A.dtype, B.dtype, C.dtype} == {torch.float32}
    decay = (delta.mT.float() * A[:, 0]).exp()
    return (C[:, 0] * looped(decay, delta.mT.float() * B[:, 0] * u.mT.float())).to(u.dtype).mT.contiguous()


def hawk(x: Tensor, x_rg_lru: Tensor, a_rg_lru: Tensor, a_param: Tensor) -> Tensor:
    require(TIME_FIRST, x, x_rg_lru, a_rg_lru)
    assert a_param.shape == x.shape[2:]
    assert a_param.dtype == torch.float32
    x_wide, i, r = x.float(), torch.sigmoid(x_rg_lru.float()), torch.sigmoid(a_rg_lru.float())
    a = torch.exp(-8.0 * torch.nn.functional.softplus(a_param) * r)
    return looped(a, x_wide * i * torch.sqrt(1 - a * a)).to(x.dtype)


class Loop:
    """The transformers module's own method, as it is called."""

    def _rnn_scan(self, hidden_states, recurrent_gate, reset, recurrent_states):
        require(TIME_FIRST, hidden_states, recurrent_gate)
        assert reset.shape == (*hidden_states.shape[:2], 1)
        assert reset.dtype == torch.bool
        assert recurrent_states is None
        return looped(recurrent_gate * ~reset, hidden_states), None


FAKES: dict[str, tuple[str, str, object]] = {
    "accelerated-scan warp": ("accelerated_scan.warp", "scan", accelerated),
    "accelerated-scan scalar": ("accelerated_scan.scalar", "scan", accelerated),
    "fla chunk_hgrn": ("fla.ops.hgrn", "chunk_hgrn", hgrn),
    "fla fused_recurrent_hgrn": ("fla.ops.hgrn", "fused_recurrent_hgrn", hgrn),
    "mamba-ssm selective_scan": ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn", selective),
    "transformers loop": (
        "transformers.models.recurrent_gemma.modeling_recurrent_gemma",
        "RecurrentGemmaRglru",
        Loop,
    ),
    "hawk-pytorch": ("hawk.scan_fused", "fused_linear_scan", hawk),
}
Plant = Callable[..., None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Puts a value where a module of that name would have it, parents included."""

    def put(path: str, name: str, value: object) -> None:
        parts = path.split(".")
        for n in range(1, len(parts) + 1):
            dotted = ".".join(parts[:n])
            module = ModuleType(dotted)
            module.__spec__ = importlib.machinery.ModuleSpec(dotted, None)
            module.__path__ = []  # type: ignore[attr-defined]
            if n == len(parts) or dotted not in planted:
                planted.setdefault(dotted, module)
                monkeypatch.setitem(sys.modules, dotted, planted[dotted])
        setattr(planted[path], name, value)

    planted: dict[str, ModuleType] = {}
    return put


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_scans, "BEYOND_CACHE", 1000)
    monkeypatch.setattr(benchmark_scans, "LAUNCHES", 2)
    # PyTorch's own takes minutes to compile; what is compiled is tested by itself.
    monkeypatch.setattr(benchmark_scan_beside, "PEERS", [NAMED[name] for name in FAKES])


def errors_of(name: str, kind: torch.dtype) -> list[float]:
    peer = NAMED[name]
    return compare(peer, functools.partial(benchmark_scan_beside._from_ours, peer, peer.load()), kind)


@pytest.mark.parametrize("name", FAKES)
def test_adapters_give_what_the_kernel_takes_and_ours_comes_out(name: str, plant: Plant) -> None:
    plant(*FAKES[name])
    value, gradient = errors_of(name, torch.float32)
    assert value < 2e-6
    assert gradient < (2e-3 if name.startswith("mamba") else 2e-5)  # its terms are over log_a, which may be small
    assert errors_of(name, torch.bfloat16)[0] < 0.05


def test_layouts_that_are_wrong_are_seen(plant: Plant) -> None:
    plant("accelerated_scan.warp", "scan", lambda a, x: accelerated(x, a))
    with pytest.raises(AssertionError):
        errors_of("accelerated-scan warp", torch.float32)
    plant("hawk.scan_fused", "fused_linear_scan", lambda x, i, r, p: hawk(x, r, i, p))
    assert max(errors_of("hawk-pytorch", torch.float32)) > 0.1
    plant("fla.ops.hgrn", "chunk_hgrn", lambda x, g: (looped(g, x), None))
    assert max(errors_of("fla chunk_hgrn", torch.float32)) > 0.1


def test_nan_is_not_lost_among_the_errors(plant: Plant) -> None:
    plant("fla.ops.hgrn", "chunk_hgrn", lambda x, g: (looped(g.exp(), x) * float("nan"), None))
    assert all(error != error for error in errors_of("fla chunk_hgrn", torch.float32))


def test_rows_of_every_peer_and_a_line_on_each(plant: Plant) -> None:
    for fake in FAKES.values():
        plant(*fake)
    found, lines = peer_passes({"linear_scan", "gated_scan"}, SHAPE, "bfloat16")
    names = [one.name for one in found]
    for name in FAKES:
        peer = NAMED[name]
        shown = name if peer.longest is None else f"{name}, 64 tokens"
        expected = [f"{peer.op} {direction}, {shown}" for direction in ("forward", "backward")]
        if peer.enter is not as_it_is:
            expected += [f"{row}, its own layout" for row in expected]
        assert set(expected) <= set(names)
        assert f"{name}, beside {peer.op}: {peer.differs}" in lines
    assert len(set(names)) == len(names) == 20
    size = 2 * 3 * 64 * 128
    moved = {one.name: one.moved for one in found}
    assert moved["linear_scan backward, accelerated-scan warp, its own layout"] == 5 * size
    assert moved["gated_scan forward, hawk-pytorch"] == 4 * size
    assert all("largest error" in one.remark for one in found)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "reason"),
    [
        ("accelerated-scan warp", (1, 48, 64), "bfloat16", "tokens=48 is not a power of two"),
        ("accelerated-scan warp", (1, 131_072, 64), "bfloat16", "from 32 to 65536"),
        ("accelerated-scan warp", (1, 65_536, 64), "float32", None),
        ("accelerated-scan scalar", (64, 65_536, 512), "bfloat16", "in 32 bits"),
        ("accelerated-scan scalar", (1, 48, 64), "bfloat16", None),
        ("hawk-pytorch", (1, 48, 64), "float32", "rounds what it stores to bfloat16"),
        ("hawk-pytorch", (1, 48, 72), "bfloat16", "multiple of 64 channels"),
        ("hawk-pytorch", (1, 48, 64), "bfloat16", None),
        ("mamba-ssm selective_scan", (1, 48, 64), "float16", "overflows float16"),
    ],
)
def test_calls_that_a_peer_cannot_run(name: str, shape: tuple[int, int, int], dtype: str, reason: str | None) -> None:
    refused = NAMED[name].refuses(shape, dtype)
    assert refused is None if reason is None else reason in str(refused)


def test_the_tree_of_plain_operations_is_ours() -> None:
    peer = NAMED["torch.compile associative_scan"]
    assert peer.forward_only is not None
    (error,) = compare(peer, lambda arrays: benchmark_scan_adapters.gated_by_tree(*arrays), torch.float32)
    assert error < 1e-5


def test_what_is_built_at_import_does_not_reach_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with benchmark_scan_adapters._told_on_stderr():
        print("python")
        subprocess.run(["echo", "compiler"], check=True)
    print("report")
    shown = capfd.readouterr()
    assert shown.out == "report\n"
    assert {"python", "compiler"} <= set(shown.err.split())


@pytest.mark.peers
def test_the_loop_of_transformers_itself() -> None:
    pytest.importorskip("transformers")
    assert max(errors_of("transformers loop", torch.float32)) < 2e-5


@pytest.mark.peers
def test_the_reference_of_accelerated_scan_itself(plant: Plant) -> None:
    ref = pytest.importorskip("accelerated_scan.ref")
    plant("accelerated_scan.warp", "scan", ref.scan)
    assert max(errors_of("accelerated-scan warp", torch.float32)) < 2e-5
