"""The language of the demonstration's archive: word lists and sentences with slots.

A sentence is a text with slots in braces. `{name}` takes a random entry of `WORDS[name]`, which
may have slots itself; `{3-40}` a whole number between the two; `{Name}` an entry with its first
letter raised. All of it was written for this archive.
"""

from collections.abc import Mapping, Sequence

PORTS = ("Port Lissan", "Tarn Haven", "Saint Orrin", "Quillmouth", "Drayfield", "Ostrey Roads")
GOODS = (
    ("amber glass", "kestrel ware"),
    ("blue slate", "widow stone"),
    ("lamp oil", "night stock"),
    ("printed linen", "parlour cloth"),
    ("copper wire", "red thread"),
    ("bone china", "milk ware"),
)
"""Goods that a question may be about, with the name that the chandlers have for them."""
SHIPS = (
    "Meridian", "Osprey", "Clarabel", "Nine Sisters", "Harrier", "Lady Enid", "Perseverance",
    "Sandpiper", "Corvus", "Bright Morning", "Tamarisk", "Old Fidelity", "Swale", "Antonia",
    "Northern Light", "Petrel", "Ferryman", "Gannet", "Rosamund", "Halcyon", "Thistle", "Marigold",
)  # fmt: skip
SHIP_KINDS = ("brig", "barque", "steamer", "schooner", "ketch", "cutter")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip

WORDS: Mapping[str, Sequence[str]] = {
    "person": (
        "Mr Abel Thorne", "Mrs Wray", "Captain Dunmore", "Miss Ottoline Pell", "young Harkness",
        "Dr Sefton", "the widow Carrow", "Jonas Brill", "Mr Pettigrew", "Hester Lane",
        "the harbour master", "our clerk", "the pilot", "Alderman Fisk", "the wharfinger",
        "old Tobias", "Agnes Marl", "the surveyor", "Mr Quennell", "Lucas Vane", "the cooper",
        "the curate", "Mrs Abernethy", "Samuel Croft", "the schoolmaster", "Ruth Ansell",
        "Mr Inskip of the bank", "the lamplighter", "Edmund Farrow", "the new apprentice",
    ),
    "place": (
        "the north quay", "the customs shed", "Rope Walk", "the chandlers' row", "the lower yard",
        "the signal station", "the fish market", "the upper town", "the tar house", "Gull Lane",
        "the ferry steps", "the old mint", "the almshouses", "the dry dock", "Lantern Hill",
        "the sail loft", "the counting house", "the breakwater", "the toll bridge", "the vestry",
    ),
    "ship": tuple(f"{kind} {name}" for kind in SHIP_KINDS[:4] for name in SHIPS[::2]),
    "other_goods": (
        "salt cod", "green glass bottles", "amber beads", "Baltic timber", "raw wool", "tallow",
        "roof tiles", "pig iron", "barley", "dried figs", "cane sugar", "goose feathers",
        "brown paper", "coarse linen", "hemp rope", "whale oil", "grindstones", "Spanish wine",
        "coal", "window lead", "seed potatoes", "black tea", "copper nails", "chalk",
    ),
    "container": ("barrels", "sacks", "bales", "casks", "bundles", "chests", "tubs", "hogsheads"),
    "weather": (
        "a hard wind from the north-east", "fog that did not lift till noon",
        "a clear cold morning",
        "rain without end", "the first snow", "a flat calm", "a swell that broke over the mole",
        "sleet in the afternoon", "a warm spell", "thunder out at sea", "a low red sun",
        "mist in the channel", "a stiff breeze", "two days of gale", "hail at breakfast",
    ),
    "mood": (
        "in good spirits", "much put out", "rather silent", "as stubborn as ever", "half asleep",
        "full of plans", "worn with work", "pleased with the terms", "hard to please",
        "civil enough", "greatly relieved", "not to be moved", "cheerful for once",
    ),
    "work": (
        "mending the slipway", "tarring the piles", "counting the stores", "copying the ledgers",
        "sounding the channel", "hanging the new doors", "clearing the gutters",
        "painting the buoys",
        "sorting the bonded goods", "splicing cable", "laying the drain", "patching the roof",
        "weighing the wool", "numbering the pews", "shoeing the dray horses", "trimming the lamps",
    ),
    "fault": (
        "a cracked beam", "a leaking cistern", "a missing key", "a broken winch", "worn bearings",
        "rats in the loft", "a disputed boundary", "a forged mark", "damp in the flour",
        "an unpaid bill", "a slack chain", "a fallen chimney", "a blocked scupper", "short weight",
        "an error in the tables", "a door that would not lock", "moth in the hangings",
    ),
    "matter": (
        "the harbour dues", "the new lamp", "the rent of the stalls", "the widows' fund",
        "the dredging of the basin", "the school roof", "the price of coal", "the ferry licence",
        "the bell of the customs house", "the widening of Gull Lane", "the night watch",
        "the quarantine shed", "the fire engine", "the Sunday closing", "the water pipes",
    ),
    "verdict": (
        "was put off to the next meeting", "was carried by {4-9} votes to {1-3}",
        "was sent to a committee of three", "was struck from the list", "was agreed without debate",
        "led to some warmth", "was held to be premature", "was left with {person}",
        "was approved, subject to the accounts", "was withdrawn by the mover",
    ),
    "feeling": (
        "I cannot say that I was surprised", "you may imagine what was said",
        "it has kept me from sleep", "I laughed in spite of myself", "we thought it best to wait",
        "nobody here speaks of anything else", "I hold my tongue about it", "it will come right",
        "I write it down so as not to forget it", "my sister takes another view",
    ),
    "food": (
        "a pie of eels", "cold mutton", "new bread", "a kettle of broth", "smoked herring",
        "apples from the hill farms", "a cheese as hard as a bollard", "strong tea", "plum duff",
    ),
    "family": (
        "your aunt", "my brother", "the twins", "little Maud", "cousin Fitch", "my mother",
        "your godson", "the boys", "my husband", "Grandfather",
    ),
    "reckoning": (
        "{12-98} pounds {1-19} shillings", "{3-60} guineas", "{2-90} shillings and {1-11} pence",
        "a matter of {5-80} crowns", "not less than {20-400} pounds",
    ),
    "hour": (
        "at first light", "at four bells", "shortly after noon", "towards evening",
        "at slack water",
        "on the turn of the tide", "before breakfast", "late in the forenoon", "at dusk",
    ),
    "soil": ("sand", "mud", "shingle", "clay", "weed on rock"),
    "count": ("{2-9}", "{10-40}", "{41-180}", "some {20-60}", "about {30-90}", "a good {12-48}"),
    "load": (
        "{count} {container} of {other_goods}", "{count} {container} of {other_goods}",
        "a part cargo of {other_goods}", "{other_goods} and {other_goods}",
    ),
    "mishap": (
        "{count} {container} of {other_goods} were wetted", "a sling parted over the hold",
        "the tallyman lost his book", "{3-30} {container} of {other_goods} went over the side",
        "the crane jammed for an hour", "{2-20} {container} of {other_goods} were found broken",
        "two lighters fouled each other", "the weights did not agree with the bill",
    ),
}  # fmt: skip

SENTENCES: Mapping[str, Sequence[str]] = {
    "letter": (
        "{Person} called about {matter} and went away {mood}.",
        "We have had {weather}, and {work} has gone slowly.",
        "I saw {family} at {place} {hour}, {mood}, and we ate {food} together.",
        "You asked what {person} meant by {fault}; {feeling}.",
        "The {ship} is expected with {load}, if {weather} does not keep her out.",
        "{Person} offers {reckoning} for the lot, which is too little for {load}.",
        "There was {fault} at {place}, and {person} spent the day at {work}.",
        "{Feeling}, but {person} has sworn to settle {matter} before the quarter is out.",
        "Tell {family} that the parcel came safe, and that {food} was never better.",
        "As to {matter}, it {verdict}; {feeling}.",
        "After {weather} we found {fault}, and {person} was {mood} for a week.",
        "I have paid {reckoning} to {person} and hold the receipt.",
        "{Family} has been {work}, with more zeal than skill.",
        "If {person} should write to you of {fault}, believe the half of it.",
    ),
    "log": (
        "{Hour}: {weather}; the {ship} in with {load}.",
        "{Hour}: {work} at {place}, {2-9} men and a boy.",
        "The {ship} warped to {place} and began to discharge {load}.",
        "{Mishap}; entered in the book and told to {person}.",
        "Soundings at {place}: {2-9} fathoms, {1-5} feet; bottom {soil}.",
        "Signal from the {ship}, outward, with {load}.",
        "{Person} came aboard {hour}, {mood}, and signed for {load}.",
        "Wind backed {hour}; {weather}. Moorings of the {ship} doubled.",
        "Found {fault} at {place}; {person} to see to it {hour}.",
        "Paid off {2-12} hands, {reckoning} in all.",
        "Lamp lit {hour}, trimmed {hour}; oil used, {1-6} gallons.",
        "The {ship} sailed {hour} on a falling glass.",
    ),
    "minutes": (
        "The question of {matter}, raised by {person}, {verdict}.",
        "{Person} reported {fault} at {place} and asked for {reckoning}.",
        "It was resolved that {person} be charged with {work}, at a cost of {reckoning}.",
        "A letter from {person} on {matter} was read and lay on the table.",
        "{Person} asked whether {matter} had been forgotten; it {verdict}.",
        "The accounts of {place} were passed: {reckoning} in, {reckoning} out.",
        "Complaint was made of {fault}; {person}, being present, was {mood}.",
        "Thanks were voted to {person} for {work} in {weather}.",
        "The tender of {person} for {work} was opened and found to be {reckoning}.",
        "The dues on {load}, landed from the {ship}, were set at {reckoning}.",
    ),
    "report": (
        "The survey of {place} found {fault}, which we put at {reckoning}.",
        "In the quarter {count} vessels were cleared, the largest the {ship} with {load}.",
        "{Mishap} at {place}, and {person} holds the carrier to blame.",
        "Of {load} examined, {1-9} in a hundred showed {fault}.",
        "Trade in {other_goods} rose, while {other_goods} fell off after {weather}.",
        "We recommend {work} at {place} before the winter, at a cost of {reckoning}.",
        "{Person} gave evidence, {mood}, that {fault} was known to all.",
        "The stores held {load} at the close, valued at {reckoning}.",
        "Delays came from {weather} and from {fault} at {place}.",
        "As to {matter}, the inspector holds that it {verdict}.",
        "Wages for {work} came to {reckoning}, against {reckoning} the year before.",
    ),
    "diary": (
        "Woke to {weather}, and {family} at the door with {food}.",
        "Walked to {place} with {family} in {weather}; {food} on the way home.",
        "{Person}, {mood}, talked of {matter} for an hour; {feeling}.",
        "Spent the day at {work} with {person}, {mood}; home {hour}.",
        "Quarrelled with {family} over {fault} at {place}; {feeling}.",
        "Saw the {ship} stand in {hour} through {weather}.",
        "{Family} read to us of {matter}, with {food} for supper {hour}.",
        "They say that {person} lost {reckoning} on {load}.",
        "Bought {food} of {person} at {place} for {reckoning}, and paid too much.",
        "Dreamt of {fault} again, and of {person} at {place}, {mood}.",
    ),
    "invoice": (
        "Terms: {reckoning} on signature, the rest at thirty days.",
        "Carriage to {place} to be borne by {person}.",
        "We draw your notice to {fault}, for which {reckoning} has been allowed.",
        "Goods lie at {place} at the buyer's risk; delivered {hour} unless there is {weather}.",
        "Any claim to be laid before {person} within {7-30} days.",
    ),
}  # fmt: skip
