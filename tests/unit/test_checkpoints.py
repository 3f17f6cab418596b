"""Checkpoints read without unpickling: what torch.save wrote is read as torch reads it, anything else is refused."""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import checkpoints, opcodes
from engines.checkpoints import differences, state_dict, unwrapped
from engines.opcodes import OPAQUE, CheckpointRefused, StoredTensor, plain_values

DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
]


class Runs:
    """Pickled, it is a call; unpickled, the call is made."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, **options)
    return path


def archive(tmp_path: Path, description: bytes, **records: bytes) -> Path:
    """An archive as torch.save writes it, with a description of one's own."""
    path = tmp_path / "made.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("made/data.pkl", description)
        for name, content in {"byteorder": b"little", **records}.items():
            file.writestr(f"made/{name.replace('_', '/')}", content)
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointRefused) as refused:
        state_dict(path, **options)
    return refused.value.code


def check(path: Path, expected: dict[str, torch.Tensor], **options: Any) -> None:
    found = state_dict(path, **options)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        wide = tensor.to(torch.float32) if tensor.dtype == torch.bfloat16 else tensor
        array = wide.detach().numpy()
        assert found[name].dtype == array.dtype, name
        assert found[name].flags.c_contiguous
        assert found[name].dtype.isnative
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_type_of_number(tmp_path: Path, dtype: torch.dtype, protocol: int) -> None:
    tensor = (torch.arange(24).reshape(2, 3, 4) - 5).to(dtype)
    if dtype.is_floating_point:
        tensor[0, 0, :3] = torch.tensor([torch.inf, torch.nan, 1e-3], dtype=torch.float64).to(dtype)
    check(saved(tmp_path, {"a": tensor}, pickle_protocol=protocol), {"a": tensor})


def test_views_of_one_storage(tmp_path: Path) -> None:
    numbers = torch.randn(5, 6, 7)
    content = {
        "all": numbers,
        "turned": numbers.permute(2, 0, 1),
        "part": numbers[1:4, ::2, 3],
        "wide": numbers[0, 0, :1].expand(9, 4),
        "scalar": numbers[2, 3, 4],
        "empty": numbers[:, :0],
        "last": numbers[4, 5, 6:],
    }
    check(saved(tmp_path, content), content)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=5),
    order=st.randoms(use_true_random=False),
    step=st.integers(1, 3),
)
def test_any_view(tmp_path_factory: pytest.TempPathFactory, shape: list[int], order: Any, step: int) -> None:
    axes = list(range(len(shape)))
    order.shuffle(axes)
    tensor = torch.randn(shape).permute(axes)
    if axes:
        tensor = tensor[::step]
    check(saved(tmp_path_factory.mktemp("view"), {"a": tensor}), {"a": tensor})


def test_a_trained_network_and_its_trainer(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.Linear(4, 2))
    optimiser = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    content = {
        "epoch": 7,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": optimiser.state_dict(),
        "scheduler_state_dict": schedule.state_dict(),
        "train_loss": np.float64(0.25),
        "best": np.float32(0.5),
        "device": torch.device("cuda:1"),
        "shape": torch.Size([1, 2]),
        "dtype": torch.float32,
    }
    check(saved(tmp_path, content), dict(network.state_dict()))


def test_a_checkpoint_of_nnunet_trainers(tmp_path: Path) -> None:
    """The entries that nnUNetTrainer.save_checkpoint writes (nnU-Net v2)."""
    network = torch.nn.Conv3d(2, 4, 3)
    optimiser = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": optimiser.state_dict(),
        "grad_scaler_state": torch.amp.GradScaler("cpu").state_dict(),
        "logging": {"mean_fg_dice": [np.float64(0.5)], "dice_per_class_or_region": [[np.float32(0.5)]], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {"plans": {"a": [1, 2]}, "configuration": "3d_fullres", "fold": 0, "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    check(saved(tmp_path, content), dict(network.state_dict()))


def test_parameters_and_ordered_dictionaries(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.randn(3, 2))
    content = collections.OrderedDict(a=parameter, b=parameter.detach().T)
    check(saved(tmp_path, content), dict(content))


def test_one_of_several_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": {"a": torch.ones(1)}, "ema": {"a": torch.zeros(1)}})
    assert refusal(path) == "several"
    check(path, {"a": torch.zeros(1)}, key="ema")
    assert refusal(path, key="other") == "no-tensors"
    assert refusal(saved(tmp_path, {"epoch": 1})) == "no-tensors"
    assert refusal(saved(tmp_path, [torch.ones(1)])) == "no-tensors"
    assert refusal(saved(tmp_path, {})) == "no-tensors"


def test_big_endian(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.tensor([1.0, 2.0])})
    swapped = tmp_path / "swapped.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(swapped, "w") as new:
        for record in old.infolist():
            content = old.read(record)
            if record.filename.endswith("/byteorder"):
                content = b"big"
            if record.filename.endswith("/data/0"):
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            new.writestr(record.filename, content)
    check(swapped, {"a": torch.tensor([1.0, 2.0])})


def calls(tmp_path: Path) -> dict[str, Any]:
    import os

    touched = str(tmp_path / "touched")
    return {
        "os.system": Runs(os.system, f"touch {touched}"),
        "eval": Runs(eval, f"open({touched!r}, 'w')"),
        "exec": Runs(exec, f"open({touched!r}, 'w')"),
        "open": Runs(open, touched, "w"),
        "getattr": Runs(getattr, "torch", "load"),
        "import": Runs(__import__, "antigravity"),
        "pickle": Runs(pickle.loads, b"N."),
        "partial": Runs(torch.hub.load_state_dict_from_url, "x"),
        "numpy": Runs(np.load, touched),
        "object": Path("x"),
        "set": {1, 2},
        "complex": torch.ones(1, dtype=torch.complex64),
        "sparse": torch.ones(2, 2).to_sparse(),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "eval", "exec", "open", "getattr", "import", "pickle", "partial", "numpy", "object", "set"),
        *("complex", "sparse"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_refused_and_not_made(tmp_path: Path, name: str, protocol: int) -> None:
    content = calls(tmp_path)[name]
    path = saved(tmp_path, {"state_dict": {"a": torch.ones(1)}, "more": content}, pickle_protocol=protocol)
    assert refusal(path) in {"global", "opcode"}
    assert not (tmp_path / "touched").exists()
    assert "antigravity" not in sys.modules


def test_calls_hidden_in_known_names_are_not_made() -> None:
    """The arguments of a name that is left out are never looked at, and a known name cannot be called as another."""
    assert plain_values(pickle.dumps(np.float64(1.0), 2)) is OPAQUE
    assert plain_values(pickle.dumps(np.arange(3), 2)) is OPAQUE
    for harmful in (
        b"ctorch._utils\n_rebuild_tensor_v2\n(tR.",
        b"ctorch._utils\n_rebuild_parameter\n(tR.",
        b"ctorch\nFloatStorage\n(tR.",
        b"ccollections\nOrderedDict\n(lp0\ntR.",
        b"\x80\x02]ccollections\nOrderedDict\nb.",
        b"\x80\x02ccollections\nOrderedDict\nq\x00h\x00b.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",
        b"\x80\x02}\x81.",
        b"\x80\x02\x82\x01.",
        b"Pos.system\n.",
    ):
        with pytest.raises(CheckpointRefused):
            plain_values(harmful)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"\x80\x02NN.",
        b"\x80\x02\x85.",
        b"\x80\x02N\x86.",
        b"\x80\x02u.",
        b"\x80\x02}N(s.",
        b"\x80\x02}(Nu.",
        b"\x80\x02](K\x01u.",
        b"\x80\x02}K\x01a.",
        b"\x80\x02h\x00.",
        b"\x80\x02q\x00.",
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x80\x02\x8a\x05a.",
        b"\x80\x02NQ.",
        b"\x80\x02NR.",
        b"\x80\x02Nb.",
        b"\xff",
    ],
)
def test_broken_pickles(content: bytes) -> None:
    with pytest.raises(CheckpointRefused):
        plain_values(content)


def described(offset: Any, shape: Any, strides: Any, count: Any = 4, key: Any = "0") -> bytes:
    """The description of {"a": tensor} with parts of one's own."""
    out = io.BytesIO()
    pickler = pickle._Pickler(out, 2)

    class Stored:
        pass

    stored = Stored()
    pickler.persistent_id = lambda item: ("storage", torch.FloatStorage, key, "cpu", count) if item is stored else None  # type: ignore[method-assign]
    pickler.dump(
        {"a": Runs(torch._utils._rebuild_tensor_v2, stored, offset, shape, strides, False, collections.OrderedDict())}
    )
    return out.getvalue()


def test_the_description_of_these_tests_is_sound(tmp_path: Path) -> None:
    path = archive(tmp_path, described(1, (3,), (1,)), data_0=np.arange(4, dtype="<f4").tobytes())
    np.testing.assert_array_equal(state_dict(path)["a"], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"offset": 2, "shape": (3,), "strides": (1,)}, "tensor"),
        ({"offset": 0, "shape": (2, 2), "strides": (3, 1)}, "tensor"),
        ({"offset": -1, "shape": (3,), "strides": (1,)}, "tensor"),
        ({"offset": 3, "shape": (3,), "strides": (-1,)}, "tensor"),
        ({"offset": 0, "shape": (-3,), "strides": (1,)}, "tensor"),
        ({"offset": 0, "shape": (3,), "strides": (1, 1)}, "tensor"),
        ({"offset": 0, "shape": (3.0,), "strides": (1,)}, "tensor"),
        ({"offset": 0, "shape": (True,), "strides": (1,)}, "tensor"),
        ({"offset": 0, "shape": [3], "strides": (1,)}, "tensor"),
        ({"offset": None, "shape": (3,), "strides": (1,)}, "tensor"),
        ({"offset": 0, "shape": (1,) * 17, "strides": (0,) * 17}, "too-large"),
        ({"offset": 0, "shape": (2**39,), "strides": (0,)}, "too-large"),
        ({"offset": 0, "shape": (2**200,), "strides": (0,)}, "too-large"),
        ({"offset": 0, "shape": (0, 2**39, 2**39), "strides": (0, 0, 0)}, "too-large"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "count": 5}, "archive"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "count": 3}, "archive"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "count": -1}, "storage"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "count": 2**62}, "archive"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "key": "1"}, "archive"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "key": "../0"}, "storage"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "key": "/etc/passwd"}, "storage"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "key": "٣"}, "storage"),
        ({"offset": 0, "shape": (3,), "strides": (1,), "key": 0}, "storage"),
    ],
)
def test_tensors_that_reach_beyond_their_storage(tmp_path: Path, parts: dict[str, Any], code: str) -> None:
    path = archive(tmp_path, described(**parts), data_0=np.arange(4, dtype="<f4").tobytes())
    started = time.monotonic()
    assert refusal(path) == code
    assert time.monotonic() - started < 5.0


def test_deep_nesting_and_bombs_end_early() -> None:
    depth = 1_000_000
    deep = plain_values(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    assert isinstance(deep, list)
    while deep:  # taken apart from outside, lest this test be the one to recurse
        deep = deep.pop()
    with pytest.raises(CheckpointRefused):  # a deep tuple as a key would make hash() recurse
        plain_values(b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.")
    with pytest.raises(CheckpointRefused) as refused:
        plain_values(b"\x80\x02" + b"N" * (opcodes.OPCODES_MAX + 10) + b".")
    assert refused.value.code == "too-large"
    doubling = b"\x80\x02Nq\x00" + b"".join(b"h%c\x86q%c" % (n - 1, n) for n in range(1, 100)) + b"."
    found = plain_values(doubling)  # 2 to the power of 99 items, if anybody walked through them
    assert isinstance(found, tuple)
    assert found[0] is found[1]


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "made.pth"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert refusal(path) == "not-checkpoint"
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    assert refusal(path) == "not-checkpoint"
    path.write_bytes(b"")
    assert refusal(path) == "not-checkpoint"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("one/data.pkl", b"N.")
        file.writestr("two/version", b"3")
    assert refusal(path) == "not-checkpoint"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("one/version", b"3")
    assert refusal(path) == "not-checkpoint"
    with pytest.raises(FileNotFoundError):
        state_dict(tmp_path / "absent.pth")


def test_compressed_and_traversing_records(tmp_path: Path) -> None:
    path = tmp_path / "made.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:  # 64 MB of zeros in 64 kB
        file.writestr("made/data.pkl", bytes(64 * 2**20))
    assert refusal(path) == "archive"
    with zipfile.ZipFile(path, "w") as file:  # no bomb, but nothing that torch.save writes either
        file.writestr("made/data.pkl", b"N" * 100, zipfile.ZIP_DEFLATED)
        file.writestr("made/data/0", bytes(1000))
    assert refusal(path) == "archive"
    for name in ("made/../../touched", "/made/x", "made/"):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("made/data.pkl", b"N.")
            file.writestr(name, b"x")
        assert refusal(path) == "archive"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("made/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("made/data.pkl", b"N.")
    assert refusal(path) == "archive"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["made.pth"]


def test_a_record_that_claims_to_be_larger_than_the_file(tmp_path: Path) -> None:
    path = archive(tmp_path, described(0, (3,), (1,)), data_0=np.arange(4, dtype="<f4").tobytes())
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"made/data/0"))
    struct.pack_into("<II", content, at + 20, 2**31, 2**31)
    path.write_bytes(content)
    assert refusal(path) in {"archive", "not-checkpoint"}


def test_a_record_that_lies_before_the_file(tmp_path: Path) -> None:
    path = archive(tmp_path, described(0, (3,), (1,)), data_0=np.arange(4, dtype="<f4").tobytes())
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, at + 16, struct.unpack_from("<I", content, at + 16)[0] + 2**31)
    path.write_bytes(content)
    assert refusal(path) in {"archive", "not-checkpoint"}


def test_limits_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {"a": torch.ones(1000)})
    monkeypatch.setattr(checkpoints, "BYTES_MAX", 4000)
    check(path, {"a": torch.ones(1000)})
    monkeypatch.setattr(checkpoints, "BYTES_MAX", 3999)
    assert refusal(path) == "too-large"
    monkeypatch.setattr(checkpoints, "DESCRIPTION_BYTES_MAX", 10)
    assert refusal(path) == "too-large"
    monkeypatch.setattr(checkpoints, "RECORDS_MAX", 1)
    assert refusal(path) == "too-large"
    monkeypatch.setattr(checkpoints, "FILE_BYTES_MAX", 100)
    assert refusal(path) == "too-large"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """No other exception escapes, whatever bytes are changed, cut or swapped."""
    folder = tmp_path_factory.mktemp("damaged")
    path = saved(folder, {"state_dict": {"a": torch.ones(2, 3), "b": torch.ones(2).half()}, "n": np.float64(1)})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        found = state_dict(path)
    except CheckpointRefused:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_damaged_descriptions_are_refused_or_read(data: st.DataObject) -> None:
    """The same on the description alone, where no checksum catches the damage first."""
    content = bytearray(described(1, (3,), (1,)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        plain_values(bytes(content))
    except CheckpointRefused:
        return


@settings(max_examples=500, deadline=None)
@given(
    words=st.lists(st.sampled_from([each for each in pickletools.opcodes if each.arg is None]), max_size=60),
    start=st.sampled_from([b"}", b"](", b"}(X\x01\x00\x00\x00aK\x01u", b"N"]),
)
def test_any_sequence_of_opcodes(words: list[Any], start: bytes) -> None:
    try:
        plain_values(b"\x80\x02" + start + b"".join(word.code.encode("latin-1") for word in words) + b".")
    except CheckpointRefused:
        return


def test_wrappers_are_taken_off_where_that_helps() -> None:
    assert unwrapped(["module.a", "module.b"], ["a", "b"]) == {"module.a": "a", "module.b": "b"}
    assert unwrapped(["module.encoder_decoder.a"], ["a"]) == {"module.encoder_decoder.a": "a"}
    assert unwrapped(["module.nnunet.a"], ["nnunet.a"]) == {"module.nnunet.a": "nnunet.a"}
    assert unwrapped(["model.0.a", "model.1.a"], ["model.0.a", "model.1.a"]) == {
        "model.0.a": "model.0.a",
        "model.1.a": "model.1.a",
    }
    assert unwrapped(["module.a", "b"], ["a", "b"]) == {"module.a": "module.a", "b": "b"}
    assert unwrapped([], ["a"]) == {}


def test_differences_are_listed() -> None:
    found = differences({"a": (1, 2), "b": (3,), "x": ()}, {"a": (1, 2), "b": (4,), "c": (5,)})
    assert (found.missing, found.unexpected, len(found.misshaped)) == (("c",), ("x",), 1)
    assert str(found) == "1 missing: c; 1 unexpected: x; 1 of another shape: b (3,), not (4,)"
    assert not differences({"a": (1,)}, {"a": (1,)})
    many = differences({}, {f"n{n}": () for n in range(20)})
    assert str(many).startswith("20 missing: n0, ")
    assert str(many).endswith("n11, …")


def test_a_tensor_is_a_description_until_it_is_read() -> None:
    found = plain_values(described(1, (3,), (1,)))
    assert isinstance(found["a"], StoredTensor)
    assert (found["a"].offset, found["a"].shape, found["a"].strides, found["a"].elements) == (1, (3,), (1,), 3)
