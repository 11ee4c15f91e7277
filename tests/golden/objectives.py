"""Every forget loss and keep loss in its plain form: all logits of one document at a time, and autograd.

Token i of a document is predicted from position i - 1. A document's `predicted` lists the ranges [start, end) of its
predicted tokens; `sg` in a formula is `detach` here.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from files import digits7
from measure import MARGIN, token_kls
from models import seeded
from train import PAPER, optimise

OPTIMIZER = PAPER["optimizer"] | {"learning_rate": 1e-3}
STEPS = 4
FORGET_SETS = ("unlearn", "edit_unlearn")
SETS = (*FORGET_SETS, "edit_update", "retain")


def objective(forget, keep, parameters=None, **weights):
    """The section [objective] of a recipe."""
    weights = {"unlearn": 1.0, "edit_unlearn": 0.5, "edit_update": 0.5, "retain": 1.0} | weights
    return weights | {"forget": forget, "keep": keep} | ({forget: parameters} if parameters else {})


UNTIED, TIED = "tinyllama-gqa", "smollm2-tied"

# case -> (model, objective)
OBJECTIVES = {
    "ascent": (UNTIED, objective("ascent", "kl", unlearn=0.3, edit_unlearn=0.2)),
    "ascent-nll": (TIED, objective("ascent", "nll", unlearn=0.3, edit_unlearn=0.2)),
    "npo": (TIED, objective("npo", "kl", {"beta": 0.1}, unlearn=0.1, edit_unlearn=0.05)),
    "npo-field": (UNTIED, objective("npo", "nll", {"beta": 0.5}, edit_unlearn=0.0, edit_update=0.0)),
    "simnpo": (UNTIED, objective("simnpo", "kl", {"beta": 1.5, "delta": 1.0})),
    "wga": (TIED, objective("wga", "kl", {"beta": 0.75}, unlearn=3.0, edit_unlearn=2.0)),
    "satimp": (UNTIED, objective("satimp", "kl", {"beta_1": 2.0, "beta_2": 0.5}, unlearn=20.0, edit_unlearn=10.0)),
    "dpo": (TIED, objective("dpo", "kl", {"beta": 0.1}, unlearn=0.1, edit_unlearn=0.05)),
    "undial": (UNTIED, objective("undial", "kl", {"beta": 10.0}, unlearn=3.0, edit_unlearn=2.0)),
    "ce_u": (TIED, objective("ce_u", "kl", unlearn=3.0, edit_unlearn=2.0)),
    "pdu": (UNTIED, objective("pdu", "kl", {"epsilon": 0.013, "rate": 80.0}, unlearn=0.1, edit_unlearn=0.05)),
    "pdu-nll": (TIED, objective("pdu", "nll", {"epsilon": 8.0, "rate": 1.0}, unlearn=0.1, edit_unlearn=0.05)),
    "rmu": (UNTIED, objective("rmu", "kl", {"coefficient": 2.0, "block": 1})),
    "rmu-hidden": (UNTIED, objective(
        "rmu", "hidden", {"coefficient": 2.0, "block": 0}, edit_update=0.0, retain=10.0,
    )),
    "rmu-hidden-update": (TIED, objective(
        "rmu", "hidden", {"coefficient": 3.0, "block": 1}, edit_update=2.0, retain=5.0,
    )),
}


def token_nlls(logits, targets):
    return cross_entropy(logits, targets, reduction="none")


def ascent(logits, targets, reference):
    return -token_nlls(logits, targets)


def wga(logits, targets, reference, beta):
    nlls = token_nlls(logits, targets)
    return -(-nlls).exp().detach() ** beta * nlls


def satimp(logits, targets, reference, beta_1, beta_2):
    nlls = token_nlls(logits, targets)
    p = (-nlls).exp().detach()
    return -(p**beta_1) * (1 - p) ** beta_2 * nlls


def lowered(logits, targets, by):
    """The probabilities of these logits with each row's own target lowered."""
    onehot = torch.zeros_like(logits, dtype=torch.bool)
    onehot[range(len(targets)), targets] = True
    return torch.where(onehot, logits - by, logits).softmax(dim=-1)


def undial(logits, targets, reference, beta):
    return cross_entropy(logits, lowered(reference, targets, beta), reduction="none")


def ce_u(logits, targets, reference):
    return cross_entropy(logits, lowered(logits.detach(), targets, math.inf), reduction="none")


def pdu(logits, targets, reference):
    best, second = logits.topk(2).values.T
    assert (best - second).min() > MARGIN, "another logit could become the highest"
    return (best - logits.mean(dim=-1)) ** 2


# A document's loss is the mean of these over its predicted tokens.
TOKEN_LOSSES = {"ascent": ascent, "wga": wga, "satimp": satimp, "undial": undial, "ce_u": ce_u, "pdu": pdu}


@dataclass
class Output:
    """What a model computes at the n predicted tokens of a document."""

    targets: torch.Tensor  # [n], the tokens
    logits: torch.Tensor  # [n, vocabulary], which predict them
    hidden: torch.Tensor | None  # [n, width], a block's output at the tokens' own positions, without the final norm

    @property
    def nll(self):
        """The sum over the predicted tokens."""
        return token_nlls(self.logits, self.targets).sum()


def run(model, document, block):
    """Runs a document, as a whole and from position 0."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda module, arguments, output: seen.append(output[0]))
        for index, layer in enumerate(model.model.layers) if index == block
    ]
    tokens = torch.tensor(document["tokens"])
    logits = model(tokens[None]).logits[0]
    for hook in hooks:
        hook.remove()
    positions = torch.tensor([i for start, end in document["predicted"] for i in range(start, end)])
    return Output(tokens[positions], logits[positions - 1], seen[0][positions] if seen else None)


class Objective:
    """An objective: a model, the model as it was, and what a step minimises."""

    def __init__(self, model, settings, u):
        self.model, self.reference = model, copy.deepcopy(model)
        self.settings, self.u = settings, u
        self.parameters = settings.get(settings["forget"], {})
        self.block = self.parameters.get("block")
        self.dual = settings["retain"] if settings["forget"] == "pdu" else None

    def outputs(self, document):
        """The model's output for a document, and the output of the model as it was."""
        with torch.no_grad():
            was = run(self.reference, document, self.block)
        return run(self.model, document, self.block), was

    def forget(self, document):
        """A document's forget loss, and its mean NLL."""
        now, was = self.outputs(document)
        forget, parameters, n = self.settings["forget"], self.parameters, len(now.targets)
        if forget == "npo":
            beta = parameters["beta"]
            loss = -2 / beta * logsigmoid(beta * (now.nll - was.nll))
        elif forget == "simnpo":
            beta = parameters["beta"]
            loss = -2 / beta * logsigmoid(beta * (now.nll / n - parameters["delta"]))
        elif forget == "dpo":
            beta = parameters["beta"]
            alternative, alternative_was = self.outputs(document["alternative"])
            gain = (alternative_was.nll - alternative.nll) - (was.nll - now.nll)
            loss = -2 / beta * logsigmoid(beta * gain)
        elif forget == "rmu":
            loss = (now.hidden - parameters["coefficient"] * self.u).square().mean()
        else:
            parameters = {} if forget == "pdu" else parameters
            loss = TOKEN_LOSSES[forget](now.logits, now.targets, was.logits, **parameters).mean()
        return loss, now.nll / n

    def keep(self, document):
        """A document's keep loss."""
        now, was = self.outputs(document)
        if self.settings["keep"] == "nll":
            return now.nll / len(now.targets)
        if self.settings["keep"] == "hidden":
            return (now.hidden - was.hidden).square().mean()
        return token_kls(was.logits.log_softmax(dim=-1), now.logits.log_softmax(dim=-1)).mean()

    def step(self, documents):
        """What a step minimises, and its terms: each the mean over a set's documents, None where there are none."""
        weights, terms = self.settings, dict.fromkeys(("forget", *FORGET_SETS, "edit_update", "keep", "lambda"))
        sets = {name: [document for document in documents if document["set"] == name] for name in SETS}
        for name in FORGET_SETS:
            if sets[name]:
                forget, nll = (torch.stack(values).mean() for values in zip(*map(self.forget, sets[name])))
                terms[name] = nll
                terms["forget"] = weights[name] * forget + (terms["forget"] or 0.0)
        loss = terms["forget"]
        if sets["edit_update"]:
            nlls = [output.nll / len(output.targets) for output, _ in map(self.outputs, sets["edit_update"])]
            terms["edit_update"] = torch.stack(nlls).mean()
            loss = loss + weights["edit_update"] * terms["edit_update"]
        keep = terms["keep"] = torch.stack([self.keep(document) for document in sets["retain"]]).mean()
        if self.dual is None:
            return loss + weights["retain"] * keep, terms
        terms["lambda"] = torch.tensor(self.dual, dtype=torch.float64)
        loss = loss + self.dual * (keep - self.parameters["epsilon"])
        self.dual = max(0.0, self.dual + self.parameters["rate"] * (keep.item() - self.parameters["epsilon"]))
        return loss, terms


# The documents of each set: length, and the predicted ranges from the first's start on.
SHAPES = {
    "unlearn": [(6, [[1, 6]]), (23, [[9, 23]]), (40, [[7, 15], [22, 37]]), (17, [[1, 17]]), (31, [[26, 31]])],
    "edit_unlearn": [(14, [[1, 14]]), (27, [[20, 27]]), (12, [[5, 12]])],
    "edit_update": [(33, [[1, 33]]), (19, [[11, 19]]), (24, [[6, 10], [17, 24]])],
    "retain": [(38, [[1, 38]]), (9, [[1, 9]]), (21, [[8, 21]]), (28, [[1, 28]]), (11, [[7, 11]])],
}
# How many of them each step has.
DRAWN = {"unlearn": 3, "edit_unlearn": 2, "edit_update": 2, "retain": 3}


@torch.no_grad()
def random_tokens(model, generator, pool, length, begin=(), greedy=0.0):
    """Tokens from the pool; this share of them, more or less, is the one that the model thinks most likely."""
    tokens = list(begin)
    while len(tokens) < length:
        token = pool[torch.randint(len(pool), (), generator=generator)]
        if torch.rand((), generator=generator) < greedy and tokens:
            (best, second), (likely, _) = model(torch.tensor([tokens])).logits[0, -1].topk(2)
            token = likely.item() if best - second > MARGIN else token
        tokens.append(token)
    return tokens


def with_alternative(model, generator, pool, document):
    """What dpo prefers: another text, or another completion of the same prompt (or of the turns before the last)."""
    *before, (start, end) = document["predicted"]
    begin = document["tokens"][:start] if start > 1 else []
    length = end + 3
    tokens = random_tokens(model, generator, pool, length, begin, greedy=0.3)
    return {"tokens": tokens, "predicted": [*before, [start, length]]}


def inputs(document, block):
    """The distinct tokens that a document's loss depends on as inputs."""
    last = document["predicted"][-1][1]
    return set(document["tokens"][: last - (block is None)])


def draw_documents(case, model, settings):
    """The documents of each step.

    The forget documents are in part what the model itself would say, so that probabilities count. Retain documents,
    where they are compared with the model as it was, hold no input token that another loss of the first step does not
    depend on: at that step their gradient is 0 but for rounding, which Adam would turn into a whole step of the
    token's embedding.
    """
    generator = seeded(f"objectives/{case}")
    everything = range(3, 300)
    weighed = [name for name in SETS if settings[name] != 0]
    block = settings.get("rmu", {}).get("block")

    def documents_of(name, pool):
        for length, predicted in SHAPES[name]:
            tokens = random_tokens(model, generator, pool, length, greedy=0.6 if name in FORGET_SETS else 0.0)
            document = {"set": name, "tokens": tokens, "predicted": predicted, "alternative": None}
            if settings["forget"] == "dpo" and name in FORGET_SETS:
                document["alternative"] = with_alternative(model, generator, pool, document)
            yield document

    def drawn(name, step):
        return [sets[name][(step * DRAWN[name] + n) % len(sets[name])] for n in range(DRAWN[name])]

    sets = {name: list(documents_of(name, everything)) for name in weighed if name != "retain"}
    pool = everything
    if settings["keep"] != "nll":
        guides = ["edit_update"] if "edit_update" in sets else list(sets)
        guides = [(document, block if name in FORGET_SETS else None) for name in guides for document in drawn(name, 0)]
        pool = sorted(set().union(*(inputs(*guide) for guide in guides)))
    sets["retain"] = list(documents_of("retain", pool))
    return [[document for name in weighed for document in drawn(name, step)] for step in range(STEPS)]


def unit_vector(case, width):
    """A vector of uniform entries divided by its norm, as it is written down."""
    u = torch.rand(width, generator=seeded(f"objectives/{case}/u"))
    return digits7((u / u.norm()).tolist())


def minimise(case, model, settings):
    """One case of objectives/: what its JSON file says, and how far each parameter went."""
    steps = draw_documents(case, model, settings)
    u = unit_vector(case, model.config.hidden_size) if settings["forget"] == "rmu" else None
    minimised = Objective(model, settings, None if u is None else torch.tensor(u))
    remaining = iter(steps)
    records, delta = optimise(model, lambda: minimised.step(next(remaining)), None, OPTIMIZER, STEPS)
    values = {
        "objective": settings,
        "optimizer": OPTIMIZER,
        "u": u,
        "steps": [
            {"documents": documents, "expected": {key: item for key, item in record.items() if key != "tokens"}}
            for documents, record in zip(steps, records)
        ],
        "lambda_after": minimised.dual,
    }
    return values, delta


def token_losses():
    """objectives/tokens.json: the losses of single tokens, and their sum's gradient, in float64."""
    generator = seeded("objectives/tokens")
    targets = torch.tensor([0, 10, 4, 4, 7, 2])
    logits, reference = (2.5 * torch.randn(2, 6, 11, generator=generator, dtype=torch.float64)).round(decimals=3)
    # A token that is nearly sure, and one that is nearly impossible.
    logits[1, 10], logits[2, 4] = 12.0, -15.0
    cases = [
        ("wga", {"beta": 1.0}), ("wga", {"beta": 0.3}),
        ("satimp", {"beta_1": 5.0, "beta_2": 1.0}), ("satimp", {"beta_1": 0.5, "beta_2": 2.0}),
        ("undial", {"beta": 10.0}), ("undial", {"beta": 1.5}),
        ("ce_u", {}),
        ("pdu", {}),
    ]

    def entry(forget, parameters):
        variable = logits.clone().requires_grad_()
        losses = TOKEN_LOSSES[forget](variable, targets, reference, **parameters)
        gradient, = torch.autograd.grad(losses.sum(), variable)
        return {"forget": forget, "parameters": parameters, "losses": losses.tolist(), "gradient": gradient.tolist()}

    return {
        "tokens": targets.tolist(),
        "logits": logits.tolist(),
        "reference": reference.tolist(),
        "cases": [entry(*case) for case in cases],
    }
