"""The teacher's cache: it says what the teacher says, survives kills and full disks, and never mistakes its owner."""

from __future__ import annotations

import json
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from duotrack.data.pairs import Batchable
from duotrack.errors import ModelError, SourceError
from duotrack.nets.teacher import Teacher, TeacherConfig
from duotrack.training.distillation import TeacherTrace, named_tensors, teacher_trace, trace_from_named
from duotrack.training.teacher_cache import CachedSamples, TeacherCache, build_cache, cache_fingerprint

CONFIG = TeacherConfig(width=48, depth=3, heads=3, head_channels=16, template_size=32, search_size=64)
DATASET = {"name": "noise", "seed": 4, "sources": ["a", "b"], "sizes": (32, 64)}
INPUTS = ("template", "template_present", "template_box", "search", "search_present")


class Noise(Dataset[Batchable]):
    """Samples by number. ``fails_at`` raises there, as a kill would; ``drawn`` lists which were asked for."""

    def __init__(self, length: int = 20, fails_at: int | None = None) -> None:
        self._length = length
        self._fails_at = fails_at
        self.drawn: list[int] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Batchable:
        if number == self._fails_at:
            raise KeyboardInterrupt
        self.drawn.append(number)
        generator = torch.Generator().manual_seed(number)
        return {
            "template": torch.randint(0, 256, (32, 32, 4), dtype=torch.uint8, generator=generator),
            "template_present": torch.ones(2),
            "template_box": torch.rand(4, generator=generator),
            "search": torch.randint(0, 256, (64, 64, 4), dtype=torch.uint8, generator=generator),
            "search_present": torch.tensor([1.0, float(number % 2)]),
            "search_box": torch.rand(4, generator=generator),
            "present": torch.tensor(float(number % 3 > 0)),
        }


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(3)
    teacher = Teacher(CONFIG)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return teacher.eval()


@pytest.fixture(scope="module")
def fingerprint(teacher: Teacher) -> dict[str, Any]:
    return cache_fingerprint(teacher, DATASET)


def build(folder: Path, teacher: Teacher, dataset: Noise | None = None, **changes: Any) -> TeacherCache:
    options = {"count": 20, "layers": (1, 3), "batch": 3, "save_every": 2} | changes
    return build_cache(folder, teacher, dataset or Noise(), cache_fingerprint(teacher, DATASET), **options)


def live(teacher: Teacher, numbers: list[int]) -> TeacherTrace:
    samples = [Noise()[number] for number in numbers]
    with torch.inference_mode():
        trace = teacher.trace(*(torch.stack([sample[name] for sample in samples]) for name in INPUTS))  # type: ignore[literal-required]
    return teacher_trace(trace, [1, 3])


def assert_half_of(found: TeacherTrace, expected: TeacherTrace) -> None:
    """The same to fp16's eleven bits, and a little for batches of another size."""
    found_tensors, expected_tensors = named_tensors(found), named_tensors(expected)
    assert found_tensors.keys() == expected_tensors.keys()
    for name, tensor in expected_tensors.items():
        assert found_tensors[name].dtype == torch.float16
        torch.testing.assert_close(found_tensors[name].float(), tensor, rtol=2**-10, atol=1e-4, msg=name)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def complete(folder: Path) -> int:
    return int(json.loads((folder / "cache.json").read_text())["complete"])


def test_the_cache_says_what_the_teacher_says(tmp_path: Path, teacher: Teacher, fingerprint: dict[str, Any]) -> None:
    build(tmp_path / "cache", teacher)
    cache = TeacherCache.open(tmp_path / "cache", fingerprint)
    assert len(cache) == 20
    assert cache.layers == (1, 3)
    for numbers in ([0, 1, 2], [19, 3, 3, 11], [7]):
        assert_half_of(cache[numbers], live(teacher, numbers))
    assert cache[[4, 5]].layers[3].shape == (2, 2, 4 + 16, 48)


def test_the_files_are_numpys(tmp_path: Path, teacher: Teacher) -> None:
    cache = build(tmp_path, teacher, store_samples=True)
    boxes = np.load(tmp_path / "teacher.box_map.npy", mmap_mode="r")
    assert boxes.shape == (20, 4, 4, 4)
    assert boxes.dtype == np.float16
    np.testing.assert_array_equal(boxes[5:7], cache[[5, 6]].box_map.numpy())
    crops = np.load(tmp_path / "sample.search.npy")
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops[9], Noise()[9]["search"].numpy())
    names = {path.name for path in tmp_path.iterdir()}
    assert "teacher.presence_logit.npy" in names
    assert not any(name.endswith(".partial") for name in names)


def test_only_what_is_asked_for_is_kept(tmp_path: Path, teacher: Teacher) -> None:
    trace = build(tmp_path, teacher, layers=(), fused=False)[[0, 1]]
    assert trace.layers == {}
    assert trace.fused is None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 10_000


@pytest.mark.parametrize("store_samples", [False, True])
@pytest.mark.parametrize("fails_at", [[1], [8], [18], [7, 13, 19]])
def test_a_killed_build_goes_on_to_the_same_bytes(
    tmp_path: Path, teacher: Teacher, fails_at: list[int], store_samples: bool
) -> None:
    """Batches of 3, saved every second: 6, 12, 18, 20 samples can be complete, and nothing between."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    build(unbroken, teacher, store_samples=store_samples)
    saved = 0
    for place in fails_at:
        dataset = Noise(fails_at=place)
        with pytest.raises(KeyboardInterrupt):
            build(broken, teacher, dataset, store_samples=store_samples)
        assert dataset.drawn[:1] == [saved]
        saved = place // 6 * 6
        if saved:
            assert complete(broken) == saved
            cache = TeacherCache.open(broken, cache_fingerprint(teacher, DATASET))
            assert len(cache) == saved
            assert_half_of(cache[[saved - 1]], live(teacher, [saved - 1]))
            with pytest.raises(IndexError, match=f"sample {saved} is not in the cache, which holds 0 to {saved - 1}"):
                cache[[saved]]
    dataset = Noise()
    build(broken, teacher, dataset, store_samples=store_samples)
    assert dataset.drawn == list(range(saved, 20))
    assert files(broken) == files(unbroken)


def test_rows_that_were_written_but_not_saved_are_written_again(tmp_path: Path, teacher: Teacher) -> None:
    """A power cut between the rows and the record: some files are longer than the record says, by half a row."""
    build(tmp_path / "unbroken", teacher)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "broken", teacher, Noise(fails_at=14))
    with (tmp_path / "broken" / "teacher.fused.npy").open("ab") as file:
        file.write(b"\xff" * 1000)
    build(tmp_path / "broken", teacher)
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


def test_a_record_is_whole_or_the_one_before(tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the disk fills up while the record of 12 samples is written: that of 6 is still there."""
    dump = json.dump

    def fail_at_12(record: dict[str, Any], file: Any, **options: Any) -> None:
        if record["complete"] == 12:
            file.write('{"fingerprint": {')
            raise OSError(28, "No space left on device")
        dump(record, file, **options)

    build(tmp_path / "unbroken", teacher)
    monkeypatch.setattr(json, "dump", fail_at_12)
    with pytest.raises(SourceError, match="No space left"):
        build(tmp_path / "broken", teacher)
    monkeypatch.setattr(json, "dump", dump)
    assert complete(tmp_path / "broken") == 6
    build(tmp_path / "broken", teacher)
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


def test_a_complete_cache_is_not_built_again(tmp_path: Path, teacher: Teacher) -> None:
    build(tmp_path, teacher)
    before, dataset, reports = files(tmp_path), Noise(), list[tuple[int, int]]()
    cache = build(tmp_path, teacher, dataset, report=lambda done, count: reports.append((done, count)))
    assert len(cache) == 20
    assert dataset.drawn == []
    assert reports == []
    assert files(tmp_path) == before


def test_progress_is_what_is_safe(tmp_path: Path, teacher: Teacher) -> None:
    reports = []

    def report(done: int, count: int) -> None:
        assert complete(tmp_path) == done
        reports.append((done, count))

    build(tmp_path, teacher, report=report)
    assert reports == [(6, 20), (12, 20), (18, 20), (20, 20)]


def test_building_leaves_the_teacher_as_it_was(tmp_path: Path, teacher: Teacher) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    teacher.train()
    build(tmp_path / "first", teacher, count=4)
    assert teacher.training
    teacher.eval()
    build(tmp_path / "second", teacher, count=4)
    assert files(tmp_path / "first") == files(tmp_path / "second")  # in evaluation mode both times
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system's own limit on file sizes: a write beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_what_was_complete_stays(tmp_path: Path, teacher: Teacher) -> None:
    build(tmp_path / "unbroken", teacher)
    row = 2 * 20 * 48 * 2  # of a layer, in bytes
    with largest_file(14 * row), pytest.raises(SourceError, match=r"cannot write the teacher cache in .*broken.*large"):
        build(tmp_path / "broken", teacher)
    assert complete(tmp_path / "broken") == 12
    build(tmp_path / "broken", teacher)
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, teacher: Teacher) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"teacher cache in .*file/cache: .*Not a directory"):
        build(tmp_path / "file" / "cache", teacher)


def test_a_missing_cache_is_said(tmp_path: Path, fingerprint: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"no teacher cache in .*nowhere: it has no cache.json"):
        TeacherCache.open(tmp_path / "nowhere", fingerprint)


def test_another_teacher_or_dataset_is_refused(tmp_path: Path, teacher: Teacher, fingerprint: dict[str, Any]) -> None:
    build(tmp_path, teacher)
    other = Teacher(CONFIG)
    with pytest.raises(ModelError, match=r"teacher\.weights is [0-9a-f]{64} in the cache and should be [0-9a-f]{64};"):
        TeacherCache.open(tmp_path, cache_fingerprint(other, DATASET))
    with pytest.raises(ModelError, match=r"else: dataset\.seed is 4 in the cache and should be 5; choose another"):
        TeacherCache.open(tmp_path, cache_fingerprint(teacher, DATASET | {"seed": 5}))
    with pytest.raises(ModelError, match=r"dataset\.absent is absent in the cache and should be 0\.1"):
        build_cache(
            tmp_path, teacher, Noise(), cache_fingerprint(teacher, DATASET | {"absent": 0.1}), count=20, layers=(1, 3)
        )
    TeacherCache.open(tmp_path, fingerprint)  # tuples in it have become lists on the disk


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (1, 2)}, r"layers is \[1, 3\] in the cache and should be \[1, 2\]"),
        ({"fused": False}, "fused is True in the cache and should be False"),
        ({"store_samples": True}, "samples is False in the cache and should be True"),
        ({"bf16": True}, "precision is fp32 in the cache and should be bf16"),
        ({"count": 19}, "count is 20 in the cache and should be 19"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, teacher: Teacher, changes: dict[str, Any], message: str) -> None:
    build(tmp_path, teacher)
    with pytest.raises(ModelError, match=message):
        build(tmp_path, teacher, **changes)


def test_the_fingerprint_follows_every_weight_and_statistic() -> None:
    torch.manual_seed(0)
    teacher = Teacher(CONFIG)
    seen = {cache_fingerprint(teacher, {})["teacher"]["weights"]}
    for tensor in teacher.state_dict().values():
        value = tensor.view(-1)[-1].clone()
        tensor.view(-1)[-1] += 1
        seen.add(cache_fingerprint(teacher, {})["teacher"]["weights"])
        tensor.view(-1)[-1] = value
    assert len(seen) == len(teacher.state_dict()) + 1


def test_a_damaged_cache_is_said(tmp_path: Path, teacher: Teacher, fingerprint: dict[str, Any]) -> None:
    build(tmp_path, teacher)
    record, fused = tmp_path / "cache.json", tmp_path / "teacher.fused.npy"
    whole, text = fused.read_bytes(), record.read_text()
    for damaged, message in (
        (whole[:-1], "holds 19 of 20 samples"),
        (b"not numpy's" * 20, r"cannot read .*teacher\.fused\.npy"),
    ):
        fused.write_bytes(damaged)
        with pytest.raises(SourceError, match=message):
            TeacherCache.open(tmp_path, fingerprint)
        with pytest.raises(SourceError, match=message):
            build(tmp_path, teacher)
    fused.unlink()
    with pytest.raises(SourceError, match=r"cannot read .*teacher\.fused\.npy"):
        TeacherCache.open(tmp_path, fingerprint)
    fused.write_bytes(whole)
    for damaged_text, message in (
        (text[:50], r"cache\.json is damaged"),
        ("[]", r"cache\.json is damaged"),
        (text.replace('"format": 1', '"format": 9'), "has format 9, expected 1"),
    ):
        record.write_text(damaged_text)
        with pytest.raises(SourceError, match=message):
            TeacherCache.open(tmp_path, fingerprint)


def test_what_cannot_be_cached_is_refused(tmp_path: Path, teacher: Teacher) -> None:
    with pytest.raises(ModelError, match="cannot cache 21 samples of a dataset of 20"):
        build(tmp_path / "long", teacher, count=21)
    with pytest.raises(ModelError, match="cannot cache 0 samples"):
        build(tmp_path / "empty", teacher, count=0)
    with pytest.raises(ModelError, match="no layer 4: expected 0 to 3"):
        build(tmp_path / "deep", teacher, layers=(4,))
    torch.manual_seed(0)
    loud = Teacher(CONFIG)
    with torch.no_grad():
        loud.backbone.norm.bias += 1e5
    with pytest.raises(ModelError, match=r"teacher\.layer\.3 does not fit fp16: its largest value is 1e\+05"):
        build(tmp_path / "loud", loud)


@pytest.mark.parametrize("store_samples", [False, True])
def test_a_loader_collates_samples_and_teacher(tmp_path: Path, teacher: Teacher, store_samples: bool) -> None:
    cache = build(tmp_path, teacher, store_samples=store_samples)
    dataset = CachedSamples(cache, None if store_samples else Noise())
    assert len(dataset) == 20
    numbers = [17, 2, 5]
    (batch,) = DataLoader(dataset, batch_size=3, sampler=numbers)
    for name, tensor in Noise()[5].items():
        assert isinstance(tensor, Tensor)
        assert torch.equal(batch[name][2], tensor)
        assert batch[name].dtype == tensor.dtype
    assert_half_of(trace_from_named(batch), live(teacher, numbers))


def test_samples_come_as_batches_too(tmp_path: Path, teacher: Teacher) -> None:
    samples = build(tmp_path, teacher, store_samples=True).samples([3, 8])
    assert samples.keys() == Noise()[0].keys()
    assert torch.equal(samples["search"][1], Noise()[8]["search"])
    assert samples["present"].tolist() == [0.0, 1.0]


def test_samples_start_again_after_the_last(tmp_path: Path, teacher: Teacher) -> None:
    dataset = CachedSamples(build(tmp_path, teacher), Noise(), length=50)
    assert len(dataset) == 50
    first, again = dataset[3], dataset[43]
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    with pytest.raises(IndexError, match="no sample 50, only 0 to 49"):
        dataset[50]


def test_samples_that_are_nowhere_are_refused(tmp_path: Path, teacher: Teacher) -> None:
    cache = build(tmp_path, teacher)
    with pytest.raises(ModelError, match="holds no samples: give the dataset"):
        CachedSamples(cache)
    with pytest.raises(ModelError, match="built without store_samples"):
        cache.samples([0])


def test_workers_get_the_folder_and_not_the_data(tmp_path: Path, teacher: Teacher) -> None:
    cache = build(tmp_path, teacher)
    parcel = pickle.dumps(cache)
    assert len(parcel) < 5000
    again = pickle.loads(parcel)
    assert torch.equal(again[[4]].box_map, cache[[4]].box_map)


def test_bf16_runs_the_teacher_under_autocast(tmp_path: Path, teacher: Teacher) -> None:
    exact, rough = build(tmp_path / "exact", teacher), build(tmp_path / "rough", teacher, bf16=True)
    difference = (exact[[0, 1]].layers[3] - rough[[0, 1]].layers[3]).abs().max()
    assert 1e-3 < float(difference) < 0.3
