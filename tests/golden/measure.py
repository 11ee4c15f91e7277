"""What a model says: log-probabilities, mean NLLs, the choice among options, perplexities, greedy text."""

import math
from statistics import fmean, median

import torch
from tokenizers import Tokenizer

from corpus import CHOICES, DOCUMENTS, PROMPTS, QUESTIONS, TEXTS
from models import load, load_tokenizer

# Two answers this close could change places with the last bits of float32; the script refuses them.
MARGIN = 1e-3


def windows(ids, max_tokens):
    """Splits a document so that every token but its first is predicted exactly once.

    Each window begins with the last token of the one before it and holds at most `max_tokens`.
    """
    assert len(ids) >= 2 and max_tokens >= 2
    return [ids[start : start + max_tokens] for start in range(0, len(ids) - 1, max_tokens - 1)]


def document_log_probs(model, document):
    """Log-probabilities [predicted tokens, vocabulary] of a document's windows, each run on its own."""
    logits = [model(torch.tensor([window])).logits[0, :-1] for window in document]
    return torch.cat(logits).log_softmax(dim=-1)


def token_nlls(log_probs, document):
    """NLL of every predicted token of a document, given its log-probabilities."""
    targets = torch.tensor([token for window in document for token in window[1:]])
    return -log_probs.gather(1, targets[:, None])[:, 0]


def token_kls(reference_log_probs, log_probs):
    """KL(reference ‖ model) at every predicted token."""
    return (reference_log_probs.exp() * (reference_log_probs - log_probs)).sum(dim=-1)


def text_nlls(model, ids):
    """NLL of every token of one unsplit text but the first."""
    return token_nlls(document_log_probs(model, [ids]), [ids])


class Subject:
    """A model folder, loaded, with both readings of its tokenizer."""

    def __init__(self, folder):
        self.model = load(folder)
        self.tokenizer = load_tokenizer(folder)
        self.file = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text):
        """Token ids, on which transformers and the bare tokenizer.json must agree."""
        ids = self.tokenizer(text)["input_ids"]
        assert ids == self.file.encode(text).ids, text
        return ids

    def decode(self, ids):
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        assert text == self.file.decode(ids, skip_special_tokens=True), ids
        return text


@torch.no_grad()
def forward(subject):
    """expected/<variant>.json: ids, mean NLLs, one text's logits, and greedy continuations."""
    ids = [subject.encode(text) for text in TEXTS]
    shortest = min((n for n in range(len(ids)) if len(ids[n]) > 4), key=lambda n: len(ids[n]))
    assert len(ids[shortest]) <= 12
    return {
        "texts": TEXTS,
        "ids": ids,
        "tokens": [len(text) - 1 for text in ids],
        "nll": [text_nlls(subject.model, text).mean().item() if len(text) > 1 else None for text in ids],
        "logits": {"text": shortest, "values": subject.model(torch.tensor([ids[shortest]])).logits[0].tolist()},
        "generate": continuations(subject),
    }


def continuations(subject):
    """Greedy continuations: of two prompts in full, and of one, where there is one, that ends early.

    Prompts where the two best tokens ever come within the margin are passed over.
    """
    full, ended = [], []
    for prompt in PROMPTS:
        continuation = continue_greedily(subject, prompt, max_new_tokens=24)
        if continuation is not None:
            (full if len(continuation["new_ids"]) == 24 else ended).append(continuation)
    assert len(full) >= 2
    return full[:2] + ended[:1]


def continue_greedily(subject, prompt, max_new_tokens):
    prompt_ids = subject.encode(prompt)
    inputs = torch.tensor([prompt_ids])
    output = subject.model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=0,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best_two = torch.cat(output.logits).topk(2).values
    if (best_two[:, 0] - best_two[:, 1]).min() <= MARGIN:
        return None
    new_ids = output.sequences[0, len(prompt_ids) :].tolist()
    return {
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "max_new_tokens": max_new_tokens,
        "new_ids": new_ids,
        "text": subject.decode(new_ids),
    }


def option_nlls(subject, question, option):
    """NLLs of an option's tokens in "question option".

    The text is encoded as a whole; the option's tokens are those that end beyond the place where the option begins.
    """
    text = f"{question} {option}"
    start = len(question) + 1
    ids = subject.encode(text)
    ends = [end for _, end in subject.file.encode(text).offsets]
    positions = [n for n, end in enumerate(ends) if end > start]
    return text_nlls(subject.model, ids)[[n - 1 for n in positions]]


def answer(subject, question, options):
    """Scores every option by the mean NLL of its tokens; the lowest wins."""
    nlls = [option_nlls(subject, question, option) for option in options]
    scores = [nll.mean().item() for nll in nlls]
    best, second = sorted(scores)[:2]
    assert second - best > MARGIN, question
    return {
        "question": question,
        "options": options,
        "tokens": [len(nll) for nll in nlls],
        "scores": scores,
        "sums": [-nll.sum().item() for nll in nlls],
        "prediction": scores.index(best),
    }


@torch.no_grad()
def choices(subject, name):
    """One entry of expected/choice.json."""
    questions = [answer(subject, question, options) for question, options in CHOICES]
    by_sum = [q["sums"].index(max(q["sums"])) for q in questions]
    assert by_sum != [q["prediction"] for q in questions], "the mean must matter"
    return {"model": name, "questions": questions}


def gradients(subject, text):
    """Loss and gradients of all parameters for the mean NLL of one text."""
    loss = text_nlls(subject.model, subject.encode(text)).mean()
    names, parameters = zip(*subject.model.named_parameters())
    return loss.item(), dict(zip(names, torch.autograd.grad(loss, parameters)))


@torch.no_grad()
def evaluation(subject, reference):
    """What `surgery eval --reference` prints for the data of steps/data, and the numbers behind it."""
    nlls = {
        name: {id: text_nlls(subject.model, subject.encode(text)) for id, _, text in documents}
        for name, documents in DOCUMENTS.items()
    }
    predictions = {
        name: {id: answer(subject, question, options)["prediction"] for id, _, question, options, _, _ in questions}
        for name, questions in QUESTIONS.items()
    }
    return {
        "perplexity": {name: perplexities(list(documents.values())) for name, documents in nlls.items()},
        "accuracy": {
            name: {split: accuracy(questions, predictions[name], split) for split in ("validation", "test")}
            for name, questions in QUESTIONS.items()
        },
        "kl": {"retain": mean_kl(subject, reference, [text for _, _, text in DOCUMENTS["retain"]])},
        "documents": {
            name: {id: {"tokens": len(nll), "nll": nll.mean().item()} for id, nll in documents.items()}
            for name, documents in nlls.items()
        },
        "predictions": predictions,
    }


def perplexities(documents):
    """The paper's mean over documents, the corpus's own, and the median over documents."""
    per_document = [math.exp(nll.mean().item()) for nll in documents]
    return {
        "mean": fmean(per_document),
        "corpus": math.exp(torch.cat(documents).mean().item()),
        "median": median(per_document),
    }


def accuracy(questions, predictions, split):
    """Percentage of a split's questions answered rightly."""
    right = [predictions[id] == correct for id, _, _, _, correct, this in questions if this == split]
    return 100.0 * fmean(right)


def mean_kl(subject, reference, texts):
    """Mean over documents of their mean KL(reference ‖ model)."""
    documents = [[subject.encode(text)] for text in texts]
    models = (reference.model, subject.model)
    pairs = [[document_log_probs(model, document) for model in models] for document in documents]
    return fmean(token_kls(*pair).mean().item() for pair in pairs)
