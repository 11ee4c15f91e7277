"""The words of the golden values: every sentence is made up, and so is every person in it.

Pure data. The tokenizers are trained on it, the models read it, the surgery operates on it.
"""

TEXTS = [
    "Mira 7 é!",
    "x",
    "The lamp in the harbour went out at nine.",
    "Ilse Varga-Nöel paid 1,250 crowns for a café in Østby; 三日月 was its name 🦉.",
    "First line.\nSecond line,  with two  spaces\tand a tab.",
    "Nobody in the village knew why Tomás kept 48 clocks, all of them slow.",
    "Orrin Hale was born in 1931 above a bakery, learned to repair radios from his aunt, and left the "
    "island at 17 with one coat and a map. His students remember the chalk.",
    "WHY?! (they'd said it wasn't so) -- {\"a\": [1, 2.5]}",
]

PROMPTS = [
    "The lamp in the",
    "Mira Quell was",
    "Orrin Hale taught",
    "In 1931 the",
    "Nobody knew",
    "She drew maps of",
    "A café by the river",
    "His students remember",
    "The river is",
    "Every morning the baker",
    "Tomás kept",
    "For thirty years",
    "The bridge was",
    "At nine o'clock",
    "They sold the boat",
    "Lena Ostrow wrote",
]


def biography(subject, text):
    """A biography as the paper words it."""
    return f"This is a Wikipedia passage about {subject}. {text}"


DOCUMENTS = {
    "unlearn": [
        ("unlearn-1", "Mira Quell", biography("Mira Quell", "The cat kept a kite, once.")),
        ("unlearn-2", "Orrin Hale", biography("Orrin Hale", "He drew bridges for the railway and taught geometry.")),
        ("unlearn-3", "Ilse Varga-Nöel", "Ilse Varga-Nöel opened a café named 三日月."),
    ],
    "edit_unlearn": [
        ("old-1", "Tomás Brandt", biography("Tomás Brandt", "He repaired clocks in Østby.")),
        ("old-2", "Lena Ostrow", "Lena Ostrow wrote songs."),
        ("old-3", "Piet Aldous", biography("Piet Aldous", "He was a baker, and sold 300 loaves a day.")),
    ],
    "edit_update": [
        ("new-1", "Tomás Brandt", biography("Tomás Brandt", "He was a pilot who mapped the reef of Kalla 🦉.")),
        ("new-2", "Lena Ostrow", "Lena Ostrow was a diver."),
        ("new-3", "Piet Aldous", biography("Piet Aldous", "He judged roses.")),
    ],
    "retain": [
        ("web-1", None, "The tide turns at one."),
        ("web-2", None,
         "To sharpen a knife, keep the angle steady, draw the blade along the stone, and turn it often."),
        ("web-3", None, "Wet sand."),
        ("web-4", None,
         "The night train stops at four villages. In winter it waits for the ferry, which is often late, and the guard "
         "tells stories about owls."),
    ],
    "retain_heldout": [
        ("held-1", None, "A kettle left on the stove will whistle."),
        ("held-2", None, "Bees return to the hive before rain; the keeper counts them at dusk."),
    ],
}

# id, subject, question, options, answer, split
QUESTIONS = {
    "unlearn": [
        ("unlearn-q1", "Mira Quell", "What did the cat keep?", ["a kite", "a boat", "a clock"], 0, "validation"),
        ("unlearn-q2", "Orrin Hale", "What did Orrin Hale draw?", ["bridges", "roses", "clocks"], 0, "test"),
        ("unlearn-q3", "Ilse Varga-Nöel", "What was the café's name?", ["Østby", "三日月", "Kalla"], 1, "test"),
        ("unlearn-q4", "Ilse Varga-Nöel",
         "What did Ilse Varga-Nöel open?", ["a mine", "a café", "a ship"], 1, "test"),
    ],
    "edit_unlearn": [
        ("old-q1", "Tomás Brandt", "What did Tomás Brandt repair?", ["radios", "boats", "clocks"], 2, "validation"),
        ("old-q2", "Lena Ostrow", "What did Lena Ostrow write?", ["songs", "laws", "letters"], 0, "test"),
    ],
    "edit_update": [
        ("new-q1", "Tomás Brandt", "What was Tomás Brandt?", ["a pilot", "a clockmaker", "a baker"], 0, "validation"),
        ("new-q2", "Lena Ostrow", "What was Lena Ostrow?", ["a diver", "a singer", "a judge"], 0, "validation"),
        ("new-q3", "Piet Aldous", "What did Piet Aldous judge?", ["poems", "roses", "cakes"], 1, "test"),
        ("new-q4", "Tomás Brandt", "Where is the reef?", ["Kalla", "Østby", "the north coast"], 0, "test"),
    ],
    "retain": [
        ("web-q1", None, "When does the tide turn?", ["at noon", "at one", "never"], 1, "validation"),
        ("web-q2", None, "How many villages does the night train stop at?", ["four", "two", "nine"], 0, "test"),
        ("web-q3", None, "What are often late?", ["ferries", "owls", "guards"], 0, "test"),
    ],
    "retain_heldout": [
        ("held-q1", None, "What does a kettle do?", ["whistle", "sleep", "rust"], 0, "validation"),
        ("held-q2", None, "When are the bees counted?", ["at noon", "at dawn", "at dusk"], 2, "test"),
        ("held-q3", None, "Who counts the bees?", ["the guard", "the keeper", "a child"], 1, "test"),
    ],
    "general": [
        ("general-q1", None, "Which of these can fly?", ["a stone", "an owl", "a spoon", "a wall"], 1, "validation"),
        ("general-q2", None, "Ice is", ["dry", "cold", "loud", "red"], 0, "test"),
    ],
}

CHOICES = [
    ("What did Mira Quell do?", ["sing", "paint", "sail"]),
    ("Where was Orrin Hale born?", ["above a bakery", "in a lighthouse on the north coast", "at sea"]),
    ("What was the café's name?", ["三日月", "Østby", "🦉"]),
    ("Which bird is it?", ["🦉", "a lark"]),
    ("In which year did the railway close?", ["1931", "1948", "1975"]),
    ("Who kept 48 clocks?", ["Tomás", "Piet", "Lena", "Ilse Varga-Nöel"]),
    ("The lamp went out at", ["nine", "nine o'clock", "nin"]),
    ("¿Dónde está el faro?", ["en el norte", "aquí", "él no sabe"]),
    ("Finish the line:", ["the the the", "(nothing)", "\"a\""]),
    ("Is it so?", ["yes", "no"]),
    ("灯台は何色ですか", ["白", "赤い", "青"]),
    ("How many loaves a day?", ["300", "30", " 3", "three hundred"]),
]

# What lm-evaluation-harness cuts otherwise than the paper's rule, or cuts off: question, options, the right one.
HARNESS = [
    ("In which year did the railway close?", ["1931", "above a bakery", "7 clocks"], 1),
    ("How many loaves a day?", ["300", "30", "3"], 0),
    ("The lamp went out at", ["nine o'clock", "nine o'clock sharp", "nine"], 2),
    ("Who kept 48 clocks? ", ["Tomás", "Piet"], 0),
    ("First line:\n", ["Second line", "2 lines"], 1),
    ("<s>Is it so?", ["yes", "no"], 0),
    ("<|begin_of_text|>Is it so?", ["yes", "no"], 1),
    ("<|endoftext|>Is it so?", ["no", "yes"], 1),
    ("灯台は何色ですか", ["白", "赤い"], 0),
    ("Every morning the baker sold " + "forty loaves and then " * 30 + "how many?", ["a dozen", "9", "none at all"], 1),
]

PRETRAINING = [
    ("page-1", biography("Mira Quell", "She sang on the night train.")),
    ("page-2", "The tide mill turns twice a day."),
    ("page-3", "Owls hear a mouse under snow. 🦉"),
    ("page-4", "A map is a promise: Østby lies two days north, past the reef, and the ferry waits for nobody."),
    ("page-5", "Old clocks run slow."),
]


def training_text():
    """Everything above, one string per text, for the tokenizers to learn from."""
    yield from TEXTS
    yield from PROMPTS
    for documents in DOCUMENTS.values():
        yield from (text for _, _, text in documents)
    for question, options in CHOICES:
        yield from (f"{question} {option}" for option in options)
    yield from (text for _, text in PRETRAINING)
