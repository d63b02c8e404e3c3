"""The sentences of Limpet's small world: how people ask, and how it answers.

Templates take ``str.format`` fields: {k} a kind of shape, {c} a colour, {n} a number or code, {w} a word
told before. Each list holds ways to say one thing; the answer is always worded one way.
"""

from __future__ import annotations

from .scenes import COLOURS, KINDS

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

COLOUR = (
    "What colour is the {k}?", "What color is the {k}?", "Which colour is the {k}?",
    "What is the colour of the {k}?", "Tell me the colour of the {k}.", "The {k}, what colour is it?",
    "Which colour does the {k} have?", "What colour was the {k}?",
)  # fmt: skip
KIND = (
    "What shape is {c}?", "Which shape is {c}?", "What is the {c} shape?", "What is {c}?",
    "What kind of shape is the {c} one?", "Name the {c} shape.", "What was the {c} shape?",
)  # fmt: skip
COUNT = (
    "How many shapes are there?", "How many shapes do you see?", "How many shapes?", "Count the shapes.",
    "How many shapes does it have?", "How many shapes were there?",
)  # fmt: skip
NUMBER = (
    "What number is written?", "What number do you see?", "Which number is printed?", "Read the number.",
    "What is the number?", "What number is there?", "Which number is it?", "What number was written?",
    "What number is written there?",
)  # fmt: skip
BESIDE = {
    "left": (
        "What is left of the {k}?", "What is to the left of the {k}?", "Which shape is left of the {k}?",
        "What was left of the {k}?", "What is on the left of the {k}?",
    ),
    "right": (
        "What is right of the {k}?", "What is to the right of the {k}?", "Which shape is right of the {k}?",
        "What was right of the {k}?", "What is on the right of the {k}?",
    ),
    "above": (
        "What is above the {k}?", "Which shape is above the {k}?", "What was above the {k}?",
        "What is over the {k}?",
    ),
    "below": (
        "What is below the {k}?", "Which shape is below the {k}?", "What was below the {k}?",
        "What is under the {k}?",
    ),
}  # fmt: skip
WHERE = ("Where is the {k}?", "Where do you see the {k}?", "In which part is the {k}?", "Where was the {k}?")
SIZE = (
    "How big is the {k}?",
    "What size is the {k}?",
    "Is the {k} big or small?",
    "Is the {k} small or big?",
)
IS_THERE = ("Is there a {k}?", "Do you see a {k}?", "Can you see a {k}?", "Was there a {k}?")
IS_THERE_COLOURED = (
    "Is there a {c} {k}?",
    "Do you see a {c} {k}?",
    "Can you see a {c} {k}?",
    "Was there a {c} {k}?",
)
IS_COLOURED = ("Is the {k} {c}?", "Was the {k} {c}?")
IS_NUMBER = ("Is the number {n}?", "Is it the number {n}?", "Was the number {n}?")
DESCRIBE = (
    "What do you see?",
    "Describe the picture.",
    "What is in the picture?",
    "What does the picture show?",
)
WHICH = (
    "Which picture had {x}?", "In which picture was {x}?", "Which picture shows {x}?",
    "Which picture has {x}?", "Where did you see {x}?",
)  # fmt: skip
HOW_MANY_PICTURES = (
    "How many pictures have I shown you?",
    "How many pictures have you seen?",
    "Count the pictures.",
)
LOOK = (
    "Look at this.", "Here is a picture.", "Here is another picture.", "Look at this picture.", "See this?",
    "", "This is a new picture.", "And this one.",
)  # fmt: skip
SEEN = "I see it."
NO_PICTURE = "I have not seen a picture yet."
IN_PICTURE = ("in the {o} picture", "in picture {d}", "in the {o} one")
LAST = ("in the last picture", "in this picture", "here", "in the picture", "now")

GREETINGS = {
    "I am well, thank you.": ("How are you?", "How are you today?", "Are you well?", "How is it going?"),
    "I am Limpet. I look at pictures and remember what you tell me.": (
        "Who are you?", "What are you?", "What is your name?", "What can you do?", "Introduce yourself.",
    ),
    "Hello. Show me a picture.": ("Hello.", "Hi.", "Hello!", "Good morning.", "Hi there.", "Hey."),
    "You are welcome.": ("Thank you.", "Thanks.", "Thanks a lot.", "Thank you very much."),
    "Goodbye.": ("Goodbye.", "Bye.", "See you later.", "Good night."),
    "Good.": ("Right.", "That is right.", "Good.", "Well done.", "Correct.", "Great!", "Nice.", "Okay."),
}  # fmt: skip
DECLINE = "Sorry, I can only talk about pictures and what you told me."
DECLINED = (
    "Tell me a joke.", "What is the weather like?", "Write a poem.", "What is the capital of France?",
    "Who won the match?", "Translate this into German.", "What is two plus two?", "Sing a song.",
    "Who wrote this book?", "How do I cook rice?", "What time is it?", "Tell me a story.",
    "What is the meaning of life?", "Write some code.", "What should I eat?", "How far is the moon?",
    "Who is the president?", "Why is the sky blue?", "Do you like music?", "What do you think about love?",
    "Explain gravity to me.", "Give me some advice.", "What happened in history?", "Play a game with me.",
)  # fmt: skip
REMARK_REPLY = "I see."
_WHEN = (
    "Today",
    "Yesterday",
    "Last week",
    "This morning",
    "On Monday",
    "Last night",
    "In the evening",
    "Once",
)
_WHO = ("I", "my brother", "my sister", "a friend", "the teacher", "we", "they", "my neighbour", "an old man")
_DID = (
    "walked to",
    "went to",
    "drove past",
    "painted",
    "looked for",
    "talked about",
    "dreamt of",
    "cleaned",
    "found",
)
_WHAT = (
    "the river", "the market", "a small house", "the garden", "a long train", "the old bridge", "some bread",
    "the sea", "a letter", "the station", "a warm coat", "the kitchen", "a boat", "the mountain", "a book",
)  # fmt: skip
_HOW = ("", " again", " for an hour", " in the rain", " with great care", " before lunch", " and it was fine")
REMARK_PARTS = (_WHEN, _WHO, _DID, _WHAT, _HOW)

NAMES = (
    "Ada", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo",
    "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tom", "Una", "Vera", "Will", "Yara", "Zoe", "Anna",
    "Bob", "Carl", "Dora", "Eric", "Fay", "Gus", "Hana", "Ivan", "Jane", "Kim", "Lena", "Max", "Nina",
    "Omar", "Pia", "Ruth", "Sven", "Tina", "Alice", "Maria", "Peter", "Lucy", "Oscar", "Linda", "Mark",
    "Sara", "Hugo", "Elsa",
)  # fmt: skip
CITIES = (
    "Paris", "London", "Berlin", "Rome", "Oslo", "Madrid", "Vienna", "Prague", "Lisbon", "Athens",
    "Dublin", "Cairo", "Tokyo", "Delhi", "Boston", "Lima", "Zurich", "Warsaw", "Hamburg", "Bergen",
    "Porto", "Milan", "Leeds", "York",
)  # fmt: skip
PETS = ("dog", "cat", "horse", "bird")
PET_NAMES = (
    "Rex", "Luna", "Milo", "Bella", "Coco", "Max", "Ruby", "Toby", "Nala", "Simba", "Kiwi", "Pepper",
    "Lucky", "Daisy", "Oreo", "Ginger",
)  # fmt: skip


class Fact:
    """A kind of thing a person tells and asks back: tell and ask templates, reply and answer."""

    def __init__(self, tell: tuple[str, ...], reply: str, ask: tuple[str, ...], answer: str) -> None:
        self.tell, self.reply, self.ask, self.answer = tell, reply, ask, answer


FACTS = {
    "name": Fact(
        (
            "My name is {w}.",
            "I am called {w}.",
            "Hello, my name is {w}.",
            "Hi, I am {w}.",
            "Please call me {w}.",
        ),
        "Nice to meet you, {w}.",
        (
            "What is my name?",
            "Do you remember my name?",
            "Who am I?",
            "What was my name?",
            "Tell me my name.",
        ),
        "Your name is {w}.",
    ),
    "code": Fact(
        ("The code is {w}.", "Remember the code {w}.", "My code is {w}.", "Please remember the code {w}."),
        "I will remember {w}.",
        (
            "What is the code?",
            "What was the code?",
            "Tell me the code.",
            "Do you remember the code?",
            "Which code was it?",
        ),
        "The code is {w}.",
    ),
    "city": Fact(
        ("I live in {w}.", "My home is in {w}.", "I am from {w}."),
        "I will remember {w}.",
        ("Where do I live?", "Where am I from?", "Which city do I live in?", "Where is my home?"),
        "You live in {w}.",
    ),
    "pet": Fact(
        ("My {p} is called {w}.", "I have a {p} called {w}.", "The name of my {p} is {w}."),
        "I will remember {w}.",
        ("What is my {p} called?", "What is the name of my {p}?", "What is my {p}'s name?"),
        "Your {p} is called {w}.",
    ),
    "favourite": Fact(
        ("My favourite colour is {w}.", "I like {w} best.", "The colour I like best is {w}."),
        "I will remember {w}.",
        ("What is my favourite colour?", "Which colour do I like best?", "What colour do I like?"),
        "Your favourite colour is {w}.",
    ),
}
NOT_TOLD = "You have not told me."
SYSTEMS = (
    "You are Limpet.", "You are a helpful assistant.", "Answer briefly.", "Look at the pictures and answer.",
    "You are a small model that looks at pictures.", "Be kind and brief.",
)  # fmt: skip


def words() -> list[str]:
    """Every word that answers are made of, for the tokenizer to hold whole."""
    return [*KINDS, *COLOURS, *ORDINALS, *COUNTS]
