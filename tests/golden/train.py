"""The surgery operation and plain continual pretraining, written to be obviously right and nothing else.

One document at a time, no padding, no packing; every step sees every document, so that no order of drawing matters.
"""

import copy

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from measure import document_log_probs, token_kls, token_nlls, windows

PAPER = {
    "objective": {"unlearn": 0.1, "edit_unlearn": 0.1, "edit_update": 2.0, "retain": 0.5},
    "optimizer": {
        "learning_rate": 2e-4, "beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-8, "weight_decay": 0.01,
        "clip_norm": 1.0, "warmup_steps": 0, "schedule": "constant",
    },
    "train": {"steps": 6, "documents_per_step": 8, "max_tokens": 4096},
}


def recipe(**changes):
    """The paper's recipe with some sections' keys changed."""
    return {section: keys | changes.get(section, {}) for section, keys in PAPER.items()}


# case -> (model, recipe)
SURGERIES = {
    "paper": ("llama1-mha", recipe()),
    "schedule": ("llama32-tied", recipe(
        optimizer={"learning_rate": 1e-3, "weight_decay": 0.1, "warmup_steps": 2, "schedule": "cosine"},
    )),
    "schedule-linear": ("llama32-tied", recipe(
        optimizer={"learning_rate": 1e-3, "beta_2": 0.999, "epsilon": 1e-6, "warmup_steps": 2, "schedule": "linear"},
    )),
    "windows": ("tinyllama-gqa", recipe(
        objective={"unlearn": 0.3, "edit_unlearn": 0.2, "edit_update": 1.0, "retain": 1.0},
        train={
            "steps": 4, "max_tokens": 16,
            "documents_per_step": {"unlearn": 3, "edit_unlearn": 4, "edit_update": 5, "retain": 4},
        },
    )),
    "update-only": ("llama3-gqa", recipe(
        objective={"unlearn": 0.0, "edit_unlearn": 0.0, "edit_update": 1.0, "retain": 0.0},
        optimizer={"clip_norm": 100.0},
        train={"steps": 4},
    )),
}

PRETRAINING_MODEL = "smollm2-tied"
PRETRAINING_RECIPE = {
    "optimizer": PAPER["optimizer"] | {"learning_rate": 1.5e-4, "warmup_steps": 2},
    "train": {"steps": 4, "documents_per_step": 8, "max_tokens": 4096},
}


def surgery_objective(model, reference, sets, weights):
    """The objective and its unweighted terms.

        loss = - w_unlearn · NLL(unlearn) - w_edit_unlearn · NLL(edit_unlearn)
               + w_edit_update · NLL(edit_update) + w_retain · KL(reference ‖ model, retain)

    Each term is the mean over documents of the document's own mean over its predicted tokens.
    A set that weighs nothing is not drawn: its term is None.
    """
    def nll(document):
        return token_nlls(document_log_probs(model, document), document).mean()

    def kl(document):
        with torch.no_grad():
            reference_log_probs = document_log_probs(reference, document)
        return token_kls(reference_log_probs, document_log_probs(model, document)).mean()

    rules = {"unlearn": (-1, nll), "edit_unlearn": (-1, nll), "edit_update": (+1, nll), "retain": (+1, kl)}
    loss, terms = 0.0, {}
    for name, (sign, measure) in rules.items():
        terms[name] = torch.stack([measure(document) for document in sets[name]]).mean() if name in sets else None
        if name in sets:
            loss = loss + sign * weights[name] * terms[name]
    terms["retain_kl"] = terms.pop("retain")
    return loss, terms


def pretraining_objective(model, documents):
    """Mean NLL over all predicted tokens of the step, whichever document they stand in."""
    return torch.cat([token_nlls(document_log_probs(model, document), document) for document in documents]).mean()


def learning_rates(optimizer, options, steps):
    """The schedule, as transformers has it."""
    warmup = options["warmup_steps"]
    if options["schedule"] == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup)
    if options["schedule"] == "cosine":
        return get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    return get_linear_schedule_with_warmup(optimizer, warmup, steps)


def optimise(model, objective, tokens, options, steps):
    """Runs AdamW and returns a record of each step and how far each parameter went."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        model.parameters(),  # norms and embeddings decay too
        lr=options["learning_rate"],
        betas=(options["beta_1"], options["beta_2"]),
        eps=options["epsilon"],
        weight_decay=options["weight_decay"],
        foreach=False,
    )
    schedule = learning_rates(optimizer, options, steps)
    records = []
    for step in range(1, steps + 1):
        loss, terms = objective()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = clip_grad_norm_(model.parameters(), options["clip_norm"])
        records.append({
            "step": step,
            "loss": loss.item(),
            **{name: None if term is None else term.item() for name, term in terms.items()},
            "grad_norm": grad_norm.item(),
            "learning_rate": schedule.get_last_lr()[0],
            "tokens": tokens,
        })
        optimizer.step()
        schedule.step()
    delta = {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
    return records, delta


def count(documents):
    """Input tokens over all windows of these documents."""
    return sum(len(window) for document in documents for window in document)


def inputs(documents):
    """The distinct tokens from which something is predicted.

    At the first step KL is 0, and so is its gradient but for rounding. Adam scales that rounding up to a whole step on
    the embedding of a token that only retain documents hold: there would be no golden value for it.
    """
    return {token for document in documents for window in document for token in window[:-1]}


def operate(subject, texts, settings):
    """Surgery on the subject's model; `texts` maps each set to its documents."""
    weights, options, train = settings["objective"], settings["optimizer"], settings["train"]
    sets = {
        name: [windows(subject.encode(text), train["max_tokens"]) for text in texts[name]]
        for name, weight in weights.items() if weight != 0
    }
    if "retain" in sets:
        others = set().union(*(inputs(documents) for name, documents in sets.items() if name != "retain"))
        assert inputs(sets["retain"]) <= others, "an embedding whose first gradient is rounding noise"
    model, reference = subject.model, copy.deepcopy(subject.model)
    tokens = sum(count(documents) for documents in sets.values())
    return optimise(model, lambda: surgery_objective(model, reference, sets, weights), tokens, options, train["steps"])


def pretrain(subject, texts, settings):
    """Continual pretraining of the subject's model on these texts."""
    options, train = settings["optimizer"], settings["train"]
    documents = [windows(subject.encode(text), train["max_tokens"]) for text in texts]
    model = subject.model
    return optimise(
        model, lambda: (pretraining_objective(model, documents), {}), count(documents), options, train["steps"]
    )
