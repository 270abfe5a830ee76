"""Codes of training: data, groups of parameters, checkpoints, runs."""

from __future__ import annotations

from nldsl.diagnostics.entry import Entry

CODES = {
    "NL0941": Entry(
        "an optional package is missing",
        "Parquet files and tokenizers are read by packages that nldsl does not need otherwise.",
    ),
    "NL0942": Entry(
        "no tokenizer",
        "A tokenizer is a `tokenizer.json` as the package `tokenizers` writes it; `nldsl data tokenizer` "
        "trains one.",
    ),
    "NL0943": Entry(
        "a document that is no text",
        "A tokenizer reads UTF-8. Nothing is replaced or skipped in silence. Bytes need no tokenizer.",
    ),
    "NL0944": Entry(
        "more tokens than the model has",
        "The embedding and the head of a model have one row per token. The data were prepared with a "
        "tokenizer that has more.",
    ),
    "NL0951": Entry(
        "no such data",
        "The data source is neither a file, nor a folder, nor `python-stdlib`.",
    ),
    "NL0952": Entry(
        "data cannot be read",
        "The system refuses to read a file of the data source. None is skipped in silence, since the "
        "held-out share and every batch would change without a word.",
    ),
    "NL0953": Entry(
        "no data",
        "The source holds no bytes: an empty file, or a folder without text files. In a folder, hidden, "
        "empty and binary files are left out, and of equal files all but one.",
    ),
    "NL0954": Entry(
        "too little data",
        "The training bytes or the held-out bytes (about a twentieth) are fewer than one window of "
        "`length` predictions.",
    ),
    "NL0955": Entry(
        "the run's data differ",
        "The data shards in the run's folder were made from another source, or a checksum of them, or of "
        "data prepared by `nldsl data prepare`, is wrong.",
    ),
    "NL0956": Entry(
        "a line without a document",
        "With `--field NAME` every line of a `.jsonl` file is an object whose NAME is text, and a `.parquet` "
        "file has a column of texts of that name; with `--label-field NAME` each has a label, too: a word or "
        "a number from 0, or a list with one for every token. None is skipped in silence.",
    ),
    "NL0957": Entry(
        "prepared data would be written over",
        "`nldsl data prepare` writes a new folder, whole or not at all.",
    ),
    "NL0958": Entry(
        "too few documents",
        "Documents are trained on or held out as a whole, so there have to be two that differ.",
    ),
    "NL0961": Entry(
        "a parameter nobody trains",
        "Every slow parameter is claimed by exactly one group of `train`. `rest` claims what is left over.",
    ),
    "NL0962": Entry(
        "a selector that claims nothing",
        "A quoted glob matches no path, or earlier groups claim everything it matches: first match wins.",
    ),
    "NL0963": Entry(
        "a weight the rule cannot train",
        "Rules that look at a weight as a matrix, such as `muon`, train matrices `[out, in]`, or those of "
        "the heads in `[heads, out, in]`. Other weights need a group of their own.",
    ),
    "NL0965": Entry(
        "a schedule of something fixed",
        "Only numbers that a rule uses as values can follow a schedule; what decides the code of the rule "
        "(`if`, clocks, options of primitives) is fixed when the optimizer is made.",
    ),
    "NL0966": Entry(
        "a sparse gradient or a complex weight",
        "Rules are written for real, dense weights. Embeddings need `sparse = False`; a complex weight can "
        "be trained through `torch.view_as_real`. A gradient has the shape of its weight, also "
        "where `weight.data = ...` has given that another one.",
    ),
    "NL0967": Entry(
        "a gradient that is not finite",
        "A gradient holds NaN or infinity. Nothing was changed: the check runs before any weight is "
        "touched. The policy `nonfinite` of an optimizer is `raise`, `skip`, `zero` or `ignore`.",
    ),
    "NL0968": Entry(
        "a bad argument of an optimizer",
        "A group of parameters names an argument the rule does not have, or one that decides its code and "
        "so is the same for all groups and steps.",
    ),
    "NL0969": Entry(
        "a saved state of another rule",
        "The memories in a state dictionary are not those of the optimizer that loads it; or those in "
        "`optimizer.state` are no longer those of the weight, which was given another shape, or one of them "
        "was taken away. A weight whose state is empty starts afresh, as in torch.",
    ),
    "NL0972": Entry(
        "a rule without its inputs",
        "A rule such as `dgd` looks at the inputs of linear layers, so the optimizer must know the layers: "
        "give it the module instead of its parameters.",
    ),
    "NL0974": Entry(
        "rows that do not give the gradient",
        "A rule that needs every row of a layer (its input and output gradient) follows what scales a "
        "gradient as a whole, such as clipping by the norm of all gradients. Noise added to a gradient, an "
        "average over processes or clipping element by element cannot be carried over to the rows. No rows "
        "are known at all of a weight that is used without its layer, as `F.linear(x, layer.weight)`.",
    ),
    "NL0975": Entry(
        "rows behind a backward pass",
        "A rule that erases along the inputs of a layer (`dgd`) takes the mean over all rows of a step. A "
        "backward pass that comes before all rows are known divides by too few: let the forward passes come "
        "first, or set `optimizer.several_passes = True`, which keeps a sum per weight and divides it anew. "
        "`nldsl train` does so by itself.",
    ),
    "NL0976": Entry(
        "a scaled loss under a rule that erases",
        "`GradScaler` multiplies the loss and divides the gradients again. What a rule such as `dgd` erases "
        "along the inputs of a layer does not come from the loss: dividing would take it away in silence.",
    ),
    "NL0977": Entry(
        "a derivative of gradients",
        "The backward passes of compiled memories are formulas that are written out, without derivatives of "
        "their own: a backward pass through gradients made with `create_graph = True` is refused. What a "
        "model learns through the steps of its memories is part of the first derivative.",
    ),
    "NL0978": Entry(
        "a module under `torch.jit.trace`",
        "`torch.jit.trace` writes down the operations of one call, with its length, counts and widths "
        "of chunks as constants: for other inputs the trace would compute something else in silence. "
        "`torch.compile`, `torch.export` and `nldsl export` take the module.",
    ),
    "NL0979": Entry(
        "a module under `torch.func`",
        "Passes over memories have backward passes written out, without rules for `torch.func` (`grad`, "
        "`vmap`, `jvp`) or forward derivatives. `torch.func.functional_call` with `torch.autograd.grad` "
        "works, also with `is_grads_batched`; gradients of single samples come of calls of single samples.",
    ),
    "NL0970": Entry(
        "no checkpoint",
        "The run has not been saved yet: there is nothing to resume or to generate from.",
    ),
    "NL0971": Entry(
        "a damaged checkpoint",
        "The checksum of a checkpoint is wrong. It is never skipped: delete it to use the one before.",
    ),
    "NL0973": Entry(
        "a checkpoint or log cannot be written",
        "The disk is full, read-only or refuses. The checkpoints that are there stay whole: what was begun "
        "is removed, and `--resume` goes on from the newest.",
    ),
    "NL0981": Entry(
        "a bad number for a run",
        "A run ends after `--steps` or after `--minutes`, one of them; other numbers have bounds, and words "
        "are of a list.",
    ),
    "NL0982": Entry(
        "no run",
        "The folder holds no `run.json`, or one that cannot be read.",
    ),
    "NL0983": Entry(
        "resumed as another run",
        "Only `--steps`, `--minutes`, `--threads`, `--spike` and `--on-fault` may change when a run is "
        "resumed; with anything else it would not be the run that was started.",
    ),
    "NL0984": Entry(
        "a task that the data cannot give",
        "`task label` is trained on documents with labels, from `nldsl data prepare --label-field NAME`, and "
        "`next_token` on any others; a model declares the streams it takes: `tokens`, and `label` for that "
        "task. Memories that minimise the task need the label of every token. A model that tells classes has "
        "no next token to generate.",
    ),
    "NL0985": Entry(
        "training diverged",
        "The loss or a gradient is not finite. The step changed no weight; what stood before it is saved. "
        "With `--resume --on-fault skip` the run goes on without this step.",
    ),
    "NL0989": Entry(
        "a spike of the gradient",
        "The gradient norm is more than `--spike` times the median of the last 64. The step changed no "
        "weight; what stood before it is saved. With `--resume --on-fault skip` the run goes on without it.",
    ),
    "NL0990": Entry(
        "a state that cannot be carried",
        "With `--stream` state is handed from step to step. That of softmax attention holds every token and "
        "would grow without end.",
    ),
    "NL0991": Entry(
        "a step that does not fit",
        "Parameters, gradients, optimiser memories, state and activations of a step are more than the memory "
        "of the machine. `nldsl plan` shows them.",
    ),
    "NL0992": Entry(
        "a device or processes that are not there",
        "`--device` names what this machine, or this torch, has not; `--parallel` was asked for without "
        "`torchrun`, which starts the processes; or the backend does not fit the device.",
    ),
    "NL0993": Entry(
        "a batch that cannot be shared",
        "`--batch` counts the windows of all processes together, so that a run is the same on any number of "
        "them: that number has to divide it.",
    ),
    "NL0994": Entry(
        "nothing for several processes",
        "What the run asks for has no exact form across processes, and it is not left out in silence.",
    ),
    "NL0995": Entry(
        "processes that were started differently",
        "All processes of a run take the same specification, data and options.",
    ),
    "NL0996": Entry(
        "blocks that cannot be computed again",
        "`--recompute blocks` keeps what a block is given and computes the rest again in the backward pass. "
        "A model needs blocks for that, and rules that do not count rows of layers.",
    ),
    "NL0997": Entry(
        "nothing to compile",
        "`--compile yes` is for blocks with memories: their passes, the step of their loop over tokens or "
        "chunks, or the functions on rows of a pass over all chunks. `auto` takes what `nldsl plan` says it "
        "pays for, and nothing where it says that of none. `native` is for loops over chunks whose backward "
        "pass is written out (self-referential memories), for passes over all chunks (held gradients) and "
        "for matrix memories (delta rules, gated linear attention, momentum), in float32 on a CPU, and for "
        "linear layers where their products are faster in C (AMD, vectors of 64 bytes). It needs "
        "a C compiler, and `NLDSL_NATIVE=off` keeps it out.",
    ),
    "NL0998": Entry(
        "another process is gone",
        "One of the processes of a run has died or hangs, and the others cannot go on without it. What had "
        "been saved is whole; `torchrun --max-restarts N` starts all of them again from there.",
    ),
    "NL0986": Entry(
        "a checkpoint of something else",
        "The checkpoint's weights have other paths or shapes than the model's, or its data are others.",
    ),
    "NL0987": Entry(
        "a block cannot be trained alone",
        "Only a model has tokens to predict.",
    ),
    "NL0988": Entry(
        "a run would be written over",
        "The folder of `--out` holds a run already, and `--resume` was not given.",
    ),
}
