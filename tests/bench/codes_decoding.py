"""Measure decoding itself: errors over all patterns of losses, and its time next to that of the shards."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from hyps.models.catalogue import build
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.codes.decoding import decode
from hyps.runtime.cluster.protocol.frames import digest_of
from tests.bench.codes_results import DecodingCost
from tests.bench.place import Place
from tests.repository import BIN, ROOT

_INPUTS = int(os.environ.get("INPUTS", "1000"))
_TIMED = 15


def decoding_costs(place: Place) -> tuple[DecodingCost, ...]:
    """Compute all shards of codes on random inputs; decode every pattern of losses.

    All codes of the classifier, with one and two parity shards, and three operators of VGG16, whose weights are seeded.
    """
    made: list[DecodingCost] = []
    vgg16 = place.folder / "vgg16.onnx"
    build("vgg16", vgg16)
    largest = [option for name in ("conv1_2", "conv4_2", "fc6") for option in ("--code", f"{name}=1")]
    for network, model, memory, options, inputs in (
        ("CIFAR classifier", ROOT / "models/cifar10_vgg.onnx", "72MB", ["--tolerate", "1"], _INPUTS),
        ("CIFAR classifier", ROOT / "models/cifar10_vgg.onnx", "72MB", ["--tolerate", "2"], _INPUTS),
        ("VGG16", vgg16, "256MB", largest, max(5, _INPUTS // 50)),
    ):
        bundle = place.folder / f"bundle-{len(made)}"
        command: list[str | Path] = [BIN / "hypsc", "compile", model, "-o", bundle, "--memory", memory]
        subprocess.run([*command, *options, "--threads", "1"], check=True, capture_output=True)
        manifest = read_manifest(bundle)
        for code in manifest.codes:
            place.say(f"{network}, {code.name}, {len(code.parity)} parity shards")
            made.append(_cost(bundle, manifest, code, network, inputs))
        shutil.rmtree(bundle)
    return tuple(made)


def _cost(bundle: Path, manifest: Manifest, code: CodeRecord, network: str, inputs: int) -> DecodingCost:
    makers = {name: step for step in manifest.steps for name in step.outputs}
    steps = [makers[name] for name in code.tensors]
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_session_config_entry("session.disable_prepacking", "1")
    sessions = [ort.InferenceSession(bundle / step.model.path, options) for step in steps]
    (source,) = steps[0].inputs
    record, shape = manifest.tensors[code.shards[0]], manifest.tensors[source].shape
    count, members = len(code.shards), range(len(code.tensors))
    generator = np.random.default_rng(count)
    worst, patterns = 0.0, 0
    losses = [lost for size in range(1, len(code.parity) + 1) for lost in itertools.combinations(members, size)]
    shard_s: list[float] = []
    decode_s: list[float] = []
    for number in range(inputs):
        # behind a ReLU, of changing scale
        values = np.maximum(generator.standard_normal(shape), 0).astype(np.float32) * np.float32(10.0 ** (number % 5 - 2))
        answers, slowest = [], 0.0
        for session, name in zip(sessions, code.tensors, strict=True):
            began = time.perf_counter()
            answers.append(session.run([name], {source: values})[0])
            slowest = max(slowest, time.perf_counter() - began)
        shard_s.append(slowest)
        scale = max(float(np.abs(each).max()) for each in answers[:count])
        for lost in losses:
            wanted = [each for each in lost if each < count]
            if not wanted:
                continue
            present = {each: answers[each].tobytes() for each in members if each not in lost}
            began = time.perf_counter()
            found = decode(code, record, present, wanted)
            for data in found.values():
                digest_of(data)
            if len(decode_s) < 200 * _TIMED:
                decode_s.append(time.perf_counter() - began)
            patterns += number == 0
            for each, data in found.items():
                off = np.abs(np.frombuffer(data, np.float32) - answers[each].ravel()).max()
                worst = max(worst, float(off) / scale)
    return DecodingCost(
        code=f"{network}, {code.name}",
        shards=count,
        parity=len(code.parity),
        tensor_bytes=record.nbytes,
        shard_s=statistics.median(shard_s),
        decode_s=statistics.median(decode_s),
        inputs=inputs,
        patterns=patterns,
        error=worst,
        bound=code.error_bound,
        moved_bytes=manifest.tensors[source].nbytes + record.nbytes,
    )
