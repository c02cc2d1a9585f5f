"""Hold the text of ``docs/benchmarks.md`` between its tables: how each part is measured."""

from __future__ import annotations

#: The bundle that the page's first sentence is about.
HIGHLIGHT = "bundle, 128 MB"

HEAD = """
# Benchmarks

Written by `make bench`; do not edit. The raw results, every reading of every run, are in
[benchmarks.json](benchmarks.json); this page and its plots are made of nothing else.

Machines are noisy: trust the ratios. They come first in every table, and where two things were run in turn a ratio is
the median of the ratios within each round. A MB is a million bytes.

Run it yourself, on Linux:

```
make bench                        # everything: an hour at most, 10 GB in the temporary folder ($TMPDIR)
make bench ONLY=latency,storage   # these parts; what is known of the others stays
make bench RENDER=1               # nothing is measured: this page and its plots from benchmarks.json
```

Parts: {parts}. Each is written when it is done; what is stopped by ctrl-C keeps the finished ones. `storage` and
`batch` need root and control groups of version 1; a part that cannot run is skipped, with the reason.
"""

_LATENCY = """
Each contender is a process of its own:

- *whole, default*: onnxruntime as it comes, on one `.onnx` file that holds the weights.
- *whole, external data*: the same, with the weights in a file next to it.
- *whole, mapped, no prepacking*: what a user would pick on a small device. Weights in a file next to the model,
  `session.disable_prepacking`, optimisations up to `ORT_ENABLE_EXTENDED`: onnxruntime maps the weights, and they are
  pages of the file, which the kernel may drop and read again.
- *whole, bundles' options*: that, and without onnxruntime's arena and memory pattern, in the lean environment
  that `hyps-run` gives itself. It is what `hypsc validate` compares a bundle's outputs with.
- *bundle, N MB*: `hypsc compile --memory NMB`, run by the runtime's executor, sha256 of its files checked.

**Memory.** The peak is VmHWM, the median of all processes of a contender: interpreter, libraries, weights, activations.
Anonymous and file-backed bytes are those of the moment of the most resident memory, in a process that was looked at
every millisecond; so they add up to about the peak.

**Warm** runs are those after the third, in processes that live at the same time and run in turn; all files were read
into the kernel's cache before. **Cold** is the median of three processes, each alone: before each of them the model's or the
bundle's files were dropped from the kernel's file cache (`posix_fadvise`). Python's own files and those of numpy and
onnxruntime stay cached, and so does what the disk or the host of a virtual machine caches: bytes are exact, cold
seconds are this storage's. **Cached** is the same start with files in the cache. Opening begins before numpy and
onnxruntime are imported; a bundle reads its weights, and checks them, in its first run.

**Bytes read** from storage are what the kernel counts for the process (`read_bytes` of proc(5)); those by `read()`
(`rchar`) come from the cache or from storage. Mapped weights are read without a call, and on a device that cannot cache
them all of them again in every run; a bundle asks for its weights, once for those that stay in memory, in every run for
the rest. That is what `storage` below measures.
"""

_NETWORKS = """
The networks that small boards run, at four budgets and at one that holds any of them whole (2 GB). Each contender is a
process of its own:

- *stock onnxruntime*: the whole model, weights in a file next to it, every option as it comes but the number of threads.
- *bundle*: `hypsc compile --memory N`, run by the runtime's executor.
- *tuned*: that bundle after `hyps-run tune`.
- *pictures, C interface*: `hypsc compile --memory N --interface c --preprocess imagenet`, tuned where that changes
  anything: how `hyps-run` runs pictures, without numpy. Sequences have no such row.

All files are in the kernel's cache. Warm runs are taken in turn, and a ratio is the median of those within each round. A
first inference is everything from the start of the imports to the first result, the median of three processes; a bundle
checks its files meanwhile. The peak is VmHWM, the largest of all processes. A dash: the network does not fit that budget.
"""

_STORAGE = """
A group of the blkio controller bounds what is read from the disk a second, one of the memory controller what the
process and its cached files hold together, less than the weights. Files are cold at the start; *s* and *read* are
medians of the three runs after the first. *Times as fast* compares with the first row; *time / (bytes / rate)* is 1
where the storage alone bounds it.
"""

_BATCH = """
The same memory, one batch by `hyps-run --batch`, start-up and opening included; the weights are read once for all
images, while others are computed. The rate is to this machine what a microSD card is to a board.
"""

_PREDICTION = """
Each seeded reference network has six budgets, from the smallest that works to what the whole network needs; two
inputs, one after the other, by `hyps-run`. A prediction above the measurement is on the safe side.
"""

_COMPILATION = """
`hypsc compile --memory 128MB` and `cp` of the same files, in turn; each begins by removing what the other wrote, and
with a pause: memory that was free for some seconds the host of a virtual machine has taken back. *inside* is VGG16 in
one file, *beside* the same with external data, *heavy* is products of matrices of 4 GB. Start-up is the compilation of
a small network.
"""

_PLANNING = """
From a network's structure to the checked plan, without reading or writing weights: near-linear in the number of
operators.
"""

_DEPENDENCIES = """
Resident memory of one lean process while it imports what the runtime needs: the least that any budget must hold.
"""

#: Parts in the order in which they are measured and shown: title, text.
SECTIONS = {
    "latency": ("VGG16, whole and in bundles", _LATENCY),
    "networks": ("Small networks against stock onnxruntime", _NETWORKS),
    "storage": ("Slow storage", _STORAGE),
    "batch": ("A batch on slow storage", _BATCH),
    "prediction": ("Predicted and measured peaks", _PREDICTION),
    "compilation": ("Compiling against copying", _COMPILATION),
    "planning": ("Planning", _PLANNING),
    "dependencies": ("Libraries", _DEPENDENCIES),
}

README_TAIL = """
One thread, files in the kernel's cache, {machine}, {when}. `make bench` measures it on your machine:
[docs/benchmarks.md](docs/benchmarks.md).
"""

#: The label of bundles that were tuned, and the README's sentence about them: at 72 and at 128 MB.
TUNED = "tuned"
README_TUNED = """
Tuned for its processor (`hyps-run tune`), the bundle takes {1} of onnxruntime's time with 128 MB and {0} with 72 MB: see
[As fast as onnxruntime](docs/guide/speed.md).
"""

#: The contenders in the README's table, by label, and their names there.
README_ROWS = {
    "whole, default": "onnxruntime, as it comes",
    "whole, mapped, no prepacking": "onnxruntime, weights mapped from a file",
    "bundle, 128 MB": "HyPS, a budget of 128 MB",
    "bundle, 72 MB": "HyPS, a budget of 72 MB",
}
