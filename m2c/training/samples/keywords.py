"""The keywords of a caption: what of it the pseudo-word takes the place of when training from texts alone.

LinCIR (arXiv 2312.01998) masks runs of nouns and adjectives, in its code with their determiners, as spaCy's part-of-speech tags
tell them. A tagger is a model to download. So here a keyword is told by what it is not: function words are few and known, and
all other words are content. The difference: verbs and adverbs count as content, so "a man riding a horse" is one keyword, where
LinCIR leaves "riding" in place. Other languages than English are masked from one punctuation mark to the next.
"""

import re


DETERMINERS = frozenset("a an the this that these those my your his her its our their some any each every".split())
# Prepositions, pronouns, conjunctions, auxiliaries, numerals, particles, and what an apostrophe leaves of "isn't" or "dog's".
FUNCTION_WORDS = frozenset(
    """
    about above across after against along amid among amongst around as at atop before behind below beneath beside besides
    between beyond by despite down during except for from in inside into like near of off on onto opposite out outside over past
    per since through throughout till to toward towards under underneath until up upon via with within without
    i me mine myself you yours yourself yourselves he him himself hers herself it itself we us ours ourselves they them theirs
    themselves who whom whose which what something someone anything anyone nothing everything everyone there here
    and or but nor so yet if than then because while when where why how whether although though unless
    am is are was were be been being has have had having do does did doing done will would shall should can could may might must
    one two three four five six seven eight nine ten eleven twelve
    not no all both few more most other another such only own same too very just also again ever never now once much many
    s t d m ll re ve isn aren wasn weren doesn didn don hasn haven hadn couldn wouldn shouldn won cannot
    """.split()
)
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")


def find_keywords(caption: str) -> list[tuple[int, int]]:
    """Where the keywords of a caption begin and end, counted in characters, from first to last.

    A keyword is a longest run of content words and determiners, at least one of them a content word, with nothing but white
    space between them.
    """
    runs: list[list[re.Match]] = [[]]
    end = 0
    for word in _WORD.finditer(caption):
        is_content = word[0].lower() not in FUNCTION_WORDS and not word[0].isdecimal()
        if not (is_content and caption[end : word.start()].isspace()):
            runs.append([])
        runs[-1] += [word] * is_content
        end = word.end()
    return [(run[0].start(), run[-1].end()) for run in runs if any(word[0].lower() not in DETERMINERS for word in run)]
