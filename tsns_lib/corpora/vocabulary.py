"""The words and sentence patterns of the built-in corpora: data only, all made up for this workbook."""

from dataclasses import dataclass

Choice = tuple[str, ...]  # wordings of one meaning, the first the plainest
Slot = list[Choice]


def _words(text: str) -> list[str]:
    return [" ".join(word.split()) for word in text.split(",")]


def _slot(text: str) -> Slot:
    return [tuple(" ".join(wording.split()) for wording in choice.split("=")) for choice in text.split("|")]


@dataclass(frozen=True)
class Reviews:
    """One sentiment domain; its `good` and `bad` words mean little, or the opposite, elsewhere."""

    things: list[str]
    good: list[str]
    bad: list[str]
    filler: list[str]


@dataclass(frozen=True)
class Pairs:
    """The vocabulary of one corpus of pairs: patterns, one slot per gap, and details that can be added."""

    patterns: tuple[str, ...]
    slots: tuple[Slot, ...]
    details: list[str]


# Opinion words that every domain shares.
GOOD = _words("wonderful, excellent, delightful, impressive, great, lovely, superb, pleasing")
BAD = _words("awful, terrible, disappointing, dreadful, poor, horrible, annoying, useless")

OPINIONS = _words("""
    The {thing} is {word}, I found the {thing} {word}, In the end the {thing} seemed {word},
    I remember the {word} {thing}, For this price the {thing} is {word}, My sister calls the {thing} {word},
    The {thing} turned out rather {word}
""")
NEGATED = _words("The {thing} is not {word} at all, Nobody could call the {thing} {word}")
CONTRASTS = _words("""
    The {thing} may be {opposite} but the {other} is {word}, Despite the {opposite} {thing} it is {word}
""")

_FILM = _words("plot, acting, ending, camera work, script, lead actor, opening scene, score")
_FILM_FILLER = _words("I saw it on a Tuesday, It runs for two hours, A friend had a spare ticket")

REVIEWS: dict[str, Reviews] = {
    "books": Reviews(
        _words("plot, narrator, final chapter, dialogue, prose, heroine, index, second half"),
        _words("engrossing, lyrical, well researched, unpredictable, thoughtful, vivid, dark, witty"),
        _words("longwinded, preachy, padded, derivative, thin, implausible, simple, dry"),
        _words("I read it on the train, It has thirty chapters, My library keeps a copy"),
    ),
    "dvd": Reviews(
        _words("picture, soundtrack, disc menu, transfer, cast, commentary, last episode, bonus disc"),
        _words("crisp, hilarious, restored, gripping, suspenseful, unpredictable, remastered, quotable"),
        _words("grainy, cropped, dubbed, wooden, overacted, dark, dated, slow"),
        _words("The set has three discs, We watched it on Sunday, It came in a plain box"),
    ),
    "electronics": Reviews(
        _words("battery, screen, cable, speaker, remote, charger, firmware, headset"),
        _words("responsive, lightweight, rechargeable, thin, compact, simple, loud, wireless"),
        _words("buggy, overheating, heavy, laggy, unpredictable, crackling, quiet, obsolete"),
        _words("It came with two adapters, I plugged it in at work, It has a thick manual"),
    ),
    "kitchen": Reviews(
        _words("kettle, frying pan, blade, lid, handle, toaster, mixer, timer"),
        _words("nonstick, dishwasher safe, sturdy, heavy, razor sharp, quiet, rustproof, simple"),
        _words("rusty, warped, leaky, dented, thin, wobbly, loud, scratched"),
        _words("I use it every morning, It holds two litres, We keep it by the stove"),
    ),
    "mr": Reviews(
        _FILM,
        _words("gripping, moving, unpredictable, hilarious, haunting, dark, heartfelt, clever"),
        _words("wooden, corny, overlong, slow, simple, muddled, soulless, predictable"),
        _FILM_FILLER,
    ),
    "sst": Reviews(
        _FILM,
        _words("gripping, moving, witty, haunting, heartfelt, lyrical, clever, daring"),
        _words("wooden, corny, overlong, muddled, soulless, preachy, derivative, stale"),
        _FILM_FILLER,
    ),
}

PAIRS: dict[str, Pairs] = {
    "scitail": Pairs(
        ("{0} {1} {2}", "{2}, {0} {1}", "it is known that {0} {1} {2}"),
        (
            _slot("""
                heat from the sun = solar energy | the force of gravity = gravity |
                a green plant = a plant | running water = a river | an electric current = electricity |
                a magnet made of iron = a magnet | the moon above us = the moon |
                a layer of warm air = warm air
            """),
            _slot("""
                turns water into vapour = evaporates water | pulls objects down = attracts objects |
                makes sugar from light = produces sugar | wears rock away = causes erosion |
                lights a lamp = powers a lamp | moves a compass needle = acts on a compass |
                raises the tides = causes tides | slows the wind down = reduces the wind
            """),
            _slot("""
                near the surface of the ocean = at sea | inside a closed glass jar = in a jar |
                on a cold mountain top = on a mountain | in the laboratory at school = in a laboratory |
                deep below the ground = underground | during the dry season = in the dry months
            """),
        ),
        _words("""
            within one hour, only at night, at constant pressure, twice as fast as before,
            without any oxygen
        """),
    ),
    "snli": Pairs(
        ("{0} {1} {2}", "{2}, {0} {1}"),
        (
            _slot("""
                a tall man in a red coat = a man | two women with backpacks = two people |
                a small girl = a child | an old fisherman = a person |
                three boys in football shirts = some children | a young chef = a cook |
                a street musician = a musician | a woman with a dog = a woman
            """),
            _slot("""
                is playing a wooden flute = is making music | is riding a blue bicycle = is riding |
                is slicing ripe tomatoes = is preparing food | is climbing a steep wall = is climbing |
                is reading a thick novel = is reading | is painting a white fence = is painting |
                is jumping over a puddle = is jumping | is carrying two baskets = is carrying something
            """),
            _slot("""
                in a crowded park = outdoors | in a narrow kitchen = indoors |
                on a wet pavement = on the street | beside a frozen lake = near water |
                in front of a brick school = near a building | under a large umbrella = under cover
            """),
        ),
        _words("to win a prize, for the first time, before dinner, while it rains, to impress a friend"),
    ),
    "mnli": Pairs(
        ("{0} {1} {2}", "{2}, {0} {1}", "well, {0} {1} {2}"),
        (
            _slot("""
                the planning committee = the committee | my older brother = my brother |
                the port authority = officials | a retired judge = a former judge |
                the museum of glass = a museum | several small firms = some firms |
                the night nurse = a nurse | our neighbours upstairs = our neighbours
            """),
            _slot("""
                postponed the vote = delayed a decision | sold the old boat = sold something |
                raised the entrance fee = made entry more expensive |
                wrote a long report = produced a report | hired two painters = employed workers |
                closed the eastern gate = shut a gate | lost the spare keys = could not find the keys |
                repaired the roof = fixed the building
            """),
            _slot("""
                at the end of March = in spring | after a long argument = after a dispute |
                because of the heavy rain = because of the weather |
                in the second chapter of the story = in the story |
                according to the minutes = according to a document |
                on the way to the harbour = on a journey
            """),
        ),
        _words("""
            against all advice, to save money, without telling anyone, for the third time, as promised
        """),
    ),
    "rte": Pairs(
        ("{0} {1} {2}", "{2}, {0} {1}", "officials say that {0} {1} {2}"),
        (
            _slot("""
                the Varnholm shipyard = a shipyard | President Olmedra = the president |
                the insurer Tessaly = an insurer | the striker Jon Akkeby = a footballer |
                the Quillon river = a river | the airline Norvia = an airline
            """),
            _slot("""
                dismissed four hundred workers = cut jobs | signed a peace treaty = agreed to peace |
                bought its largest rival = took over a rival |
                flooded eleven villages = caused a flood | moved its head office = relocated |
                was awarded a gold medal = won a medal
            """),
            _slot("""
                in the northern province of Lerra = in Lerra | on the second of May = in May |
                after talks in the capital Osmund = after talks | during the summer of 1998 = in 1998 |
                near the border with Calvary = near the border
            """),
        ),
        _words("""
            for the second year, with the help of the army, despite the protests, in secret,
            worth nine million
        """),
    ),
    "qqp": Pairs(
        ("{0} {1} {2}?", "{2}, {0} {1}?"),
        (
            _slot("""
                how do I = what is the best way to | why should I = what is the reason to |
                is it possible to = can one | how long does it take to = how much time is needed to |
                where can I = what is a good place to | how much does it cost to = what is the price to
            """),
            _slot("""
                learn to play chess = become good at chess | repair a laptop = fix a broken computer |
                grow tomatoes = raise tomato plants | learn Portuguese = study Portuguese |
                lose weight = become thinner | rent a flat = find an apartment |
                sell a used car = get rid of an old car | sleep better = improve my sleep
            """),
            _slot("""
                in a big city = in town | at home = without leaving the house |
                as a student = while studying | in winter = during the cold months |
                at the age of forty = in my forties
            """),
        ),
        _words("for free, in one month, without a teacher, on my own, with little money"),
    ),
    "mrpc": Pairs(
        ("{0} {1} {2}", "{2}, {0} {1}", "{0} said on Monday it {1} {2}"),
        (
            _slot("""
                the carmaker = the car company | the central bank = the bank |
                the phone operator = the phone company | the state prosecutor = the prosecutor |
                the drug maker = the pharmaceutical firm | the oil group = the oil company
            """),
            _slot("""
                reported higher profits = posted a rise in profits |
                cut its main forecast = lowered its outlook |
                recalled a popular model = withdrew a popular model |
                dropped all charges = abandoned the case |
                opened a plant abroad = started foreign production |
                named a new chairman = appointed a chairman |
                reported lower profits = posted a fall in profits |
                raised its main forecast = lifted its outlook
            """),
            _slot("""
                in the third quarter = for the third quarter |
                in the first quarter = for the first quarter | after a review = following an inquiry |
                amid weak demand = as demand slowed |
                under pressure from shareholders = as investors demanded
            """),
        ),
        _words("""
            of 12 percent, of 21 percent, in two cities, for the first time since 1991,
            against expectations
        """),
    ),
}
