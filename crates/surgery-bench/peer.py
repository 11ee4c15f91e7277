"""The part of the benchmark that measures PyTorch and transformers: the same work, on request of the Rust program.

Reads one JSON object a line from standard input and answers each with one line on standard output:

    {"config": {...}, "threads": 2, "seed": 0,              the shape, or "model": a folder with weights; comes first
     "device": "cpu" or "cuda",
     "precision": "f32", "mixed" (autocast to bf16) or "bf16"}
    {"do": "step", "documents": {set: [[id, ...], ...]}}    one step of the operation, timed with its parts
    {"do": "evaluate", "texts": ..., "questions": ...,      mean NLL of each text, the option chosen at each question
     "arrangement": "batched" or "single", "batch_tokens": 2048}
    {"do": "job", "steps": N, "draws": [documents, ...], ...}    evaluate, N steps, evaluate; the rest as in evaluate
    {"do": "forget_peak"}, {"do": "memory"}                 the most memory held since the former
    {"do": "gemm", "m": ..., "k": ..., "n": ...}            the best rate of a matrix product
    {"do": "quit"}

What cannot be done is answered with {"error": "..."}. Times are seconds of the work itself, from lists of ids to
numbers; reading and writing JSON is not in them. Steps go on from the weights that the last one left.

PyTorch's threads spin while they wait for each other, which is best on an idle machine; where other work takes a core,
a step takes several times as long. The environment decides: OMP_WAIT_POLICY=passive lets them sleep.
"""

import copy
import json
import os
import sys
import time
import warnings
from pathlib import Path

# Standard output carries the answers; all other output goes to standard error.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
warnings.simplefilter("ignore")
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
sys.dont_write_bytecode = True

import torch
import transformers
from torch.nn.functional import cross_entropy, kl_div
from transformers import LlamaConfig, LlamaForCausalLM

# Weight of each set's loss in the objective.
WEIGHTS = {"unlearn": -0.1, "edit_unlearn": -0.1, "edit_update": 2.0, "retain": 0.5}
PARTS = ("forward", "reference", "loss", "backward", "clip", "adamw")
CLIP_NORM = 1.0
IGNORED = -100
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__}


def wait():
    """Waits until the device has finished."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def collate(documents):
    """Ids, attention mask and labels of documents right-padded to the longest; each label is the next token."""
    shape = len(documents), max(map(len, documents))
    # Assembled on the host and copied to the device at once.
    ids, mask, labels = (torch.full(shape, value, device="cpu") for value in (0, 0, IGNORED))
    for row, document in enumerate(documents):
        document = torch.tensor(document, device="cpu")
        ids[row, : len(document)] = document
        mask[row, : len(document)] = 1
        labels[row, : len(document) - 1] = document[1:]
    device = torch.get_default_device()
    return ids.to(device), mask.to(device), labels.to(device)


def mean_of_documents(values, labels):
    """The mean over documents of each one's mean over its predicted tokens; other positions do not count."""
    predicted = labels != IGNORED
    return (values.where(predicted, 0.0).sum(dim=1) / predicted.sum(dim=1)).mean()


def token_nlls(logits, labels):
    """NLL of every label; 0 for positions without a label."""
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none").view_as(labels)


def token_kls(reference_logits, logits):
    """KL(reference ‖ model) at every position: the authors' cross-entropy less a constant, and without its 1e-12."""
    log_probs, reference_log_probs = logits.log_softmax(dim=-1), reference_logits.log_softmax(dim=-1)
    return kl_div(log_probs, reference_log_probs, reduction="none", log_target=True).sum(dim=-1)


class Clock:
    """Seconds by part: `lap` adds the time since the last call to a part."""

    def __init__(self):
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.started = self.last = time.perf_counter()

    def lap(self, part):
        wait()
        now = time.perf_counter()
        self.parts[part] += now - self.last
        self.last = now


class Peer:
    """A model in training, its frozen reference, and its optimizer."""

    def __init__(self, request):
        torch.manual_seed(request.get("seed", 0))
        if request.get("model"):
            self.model = LlamaForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
        else:
            # transformers' own initialisation: N(0, 0.02), norms of 1.
            self.model = LlamaForCausalLM(LlamaConfig(**request["config"]))
        self.precision = request.get("precision", "f32")
        if self.precision == "bf16":
            self.model.to(torch.bfloat16)
        self.config = self.model.config
        # Nothing is generated, so a cache of keys and values would only take time and memory.
        self.config.use_cache = False
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)
        adamw = {"lr": 2e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.01}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **adamw)

    def autocast(self):
        """Autocast of the forward passes, if weights are f32 but products are not."""
        device = torch.get_default_device().type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "mixed")

    def check(self, documents):
        """Refuses empty documents, documents longer than the context, and unknown tokens."""
        if not documents:
            raise ValueError("there are no documents")
        for ids in documents:
            if not 2 <= len(ids) <= self.config.max_position_embeddings:
                raise ValueError(f"a document has {len(ids)} tokens; 2 to {self.config.max_position_embeddings} can be")
            if min(ids) < 0 or max(ids) >= self.config.vocab_size:
                raise ValueError(f"a token is not within 0 to {self.config.vocab_size - 1}")

    def check_step(self, sets):
        if set(sets) != set(WEIGHTS):
            raise ValueError(f"the sets of a step are {', '.join(WEIGHTS)}")
        for documents in sets.values():
            self.check(documents)

    def check_evaluation(self, request):
        if request["arrangement"] not in ("batched", "single"):
            raise ValueError("the arrangements are batched and single")
        options = [option for options in request["questions"] for option in options]
        self.check(request["texts"] + [option["ids"] for option in options])
        if not all(request["questions"]):
            raise ValueError("a question has no options")
        if not all(1 <= option["start"] < option["end"] <= len(option["ids"]) for option in options):
            raise ValueError("an option has no tokens of its own, or nothing precedes them")

    def train(self, sets):
        """One step as in the authors' code: a forward pass for each set, the total loss, one backward pass."""
        clock = Clock()
        self.model.train()
        loss = 0.0
        for name, weight in WEIGHTS.items():
            ids, mask, labels = collate(sets[name])
            with self.autocast():
                logits = self.model(ids, attention_mask=mask).logits
            clock.lap("forward")
            if name == "retain":
                with torch.no_grad(), self.autocast():
                    reference_logits = self.reference(ids, attention_mask=mask).logits
                clock.lap("reference")
                values = token_kls(reference_logits, logits)
            else:
                values = token_nlls(logits, labels)
            loss = loss + weight * mean_of_documents(values, labels)
            clock.lap("loss")
        loss.backward()
        clock.lap("backward")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        clock.lap("clip")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        clock.lap("adamw")
        seconds = clock.last - clock.started
        return {"seconds": seconds, "parts": clock.parts, "loss": loss.item(), "grad_norm": norm.item()}

    def alone(self, spans):
        """Mean NLL of each span with a separate forward pass each, as in the authors' code."""
        values = []
        for ids, start, end in spans:
            tokens = torch.tensor([ids])
            logits = self.model(tokens, attention_mask=torch.ones_like(tokens)).logits
            values.append(cross_entropy(logits[0, start - 1 : end - 1], tokens[0, start:end]).item())
        return values

    def batched(self, spans, batch_tokens):
        """Mean NLL of each span, longest first, with at most `batch_tokens` in a batch, including padding.

        Padding on the right is after all that attention may look at, so no mask is needed, and attention without one
        is faster. The head sees only the positions whose next token is asked for.
        """
        values = [0.0] * len(spans)
        order = sorted(range(len(spans)), key=lambda index: -len(spans[index][0]))
        while order:
            rows = max(1, batch_tokens // len(spans[order[0]][0]))
            batch, order = order[:rows], order[rows:]
            ids, _, labels = collate([spans[index][0] for index in batch])
            asked = torch.zeros(ids.shape, dtype=torch.bool, device="cpu")
            for row, index in enumerate(batch):
                _, start, end = spans[index]
                asked[row, start - 1 : end - 1] = True
            asked = asked.to(ids.device)
            logits = self.model.lm_head(self.model.model(ids).last_hidden_state[asked])
            nlls = cross_entropy(logits, labels[asked], reduction="none").split(asked.sum(dim=1).tolist())
            for index, value in zip(batch, nlls):
                values[index] = value.mean().item()
        return values

    @torch.inference_mode()
    def score(self, request):
        """Mean NLL of every text's tokens except the first, and for each question the option with the lowest mean NLL."""
        started = time.perf_counter()
        self.model.eval()

        def nlls(spans):
            if request["arrangement"] == "single":
                return self.alone(spans)
            return self.batched(spans, request.get("batch_tokens", 2048))

        questions = request["questions"]
        with self.autocast():
            texts = nlls([(ids, 1, len(ids)) for ids in request["texts"]])
            options = iter(nlls([(o["ids"], o["start"], o["end"]) for options in questions for o in options]))
        choices = []
        for question in questions:
            own = [next(options) for _ in question]
            choices.append(own.index(min(own)))
        return {"seconds": time.perf_counter() - started, "text_nll": texts, "choices": choices}

    def job(self, request):
        """The whole job: an evaluation, all steps, and another evaluation."""
        draws = request["draws"]
        if len(draws) != request["steps"]:
            raise ValueError(f"{request['steps']} steps have {len(draws)} draws")
        self.check_evaluation(request)
        for documents in draws:
            self.check_step(documents)
        started = time.perf_counter()
        self.score(request)
        train_started = time.perf_counter()
        for documents in draws:
            self.train(documents)
        train = time.perf_counter() - train_started
        self.score(request)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "evaluate_seconds": seconds - train, "train_seconds": train}


def status_bytes(field):
    """A size of this process that Linux reports: VmRSS is its memory now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def forget_peak():
    """Resets the peak; on systems without support, the peak of the whole process remains."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return {"forgotten": True}
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return {"forgotten": True}
    except OSError:
        return {"forgotten": False}


def held(idle_bytes):
    """Peak memory, and memory before there was a model: of the process, or reserved on the GPU."""
    if torch.get_default_device().type == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_reserved(), "idle_bytes": 0}
    return {"peak_bytes": status_bytes("VmHWM"), "idle_bytes": idle_bytes}


@torch.inference_mode()
def gemm(m, k, n, dtype):
    """The best rate over at least 5 products and 0.3 s."""
    a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
    c = torch.empty(m, n, dtype=dtype)
    times = []
    while len(times) < 5 or sum(times) < 0.3:
        started = time.perf_counter()
        torch.mm(a, b, out=c)
        wait()
        times.append(time.perf_counter() - started)
    return {"gflops": 2 * m * k * n / min(times) / 1e9}


def answer(values):
    print(json.dumps(values, allow_nan=False), file=ANSWERS, flush=True)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    idle_bytes = status_bytes("VmRSS")
    peer = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            if peer is None:
                torch.set_num_threads(request.get("threads", 2))
                torch.set_default_device(request.get("device", "cpu"))
                peer = Peer(request)
                answer({"ready": True, **VERSIONS, "idle_bytes": idle_bytes})
                continue
            do = request["do"]
            if do == "quit":
                return
            if do == "step":
                peer.check_step(request["documents"])
                answer(peer.train(request["documents"]))
            elif do == "evaluate":
                peer.check_evaluation(request)
                answer(peer.score(request))
            elif do == "job":
                answer(peer.job(request))
            elif do == "gemm":
                dtype = torch.float32 if peer.precision == "f32" else torch.bfloat16
                answer(gemm(request["m"], request["k"], request["n"], dtype))
            elif do == "forget_peak":
                answer(forget_peak())
            elif do == "memory":
                answer(held(idle_bytes))
            else:
                raise ValueError(f"there is no {do!r}")
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
