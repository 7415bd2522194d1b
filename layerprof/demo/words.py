"""The words of the bundled text task: a list of common English words, split once into training and evaluation."""

from __future__ import annotations

import zlib

_WORDS = """
able acid actor adult after agent album alert amber angle ankle apple april apron arch arena army arrow
asset atlas audio aunt avenue award baby bacon badge baker bank barn basil basket beach beacon bean bear
berry bike bird bishop blade block bloom board boat bonus book boot border bottle bowl brave bread brick
bridge brush bucket budget bunny butter button cabin cable cactus cafe cake camel camera camp candle candy
canoe canyon carbon cargo carpet castle cedar cellar chair chalk cheese cherry chief choir circus city clay
client cliff clock closed cloth cloud clown coach coast cobra coffee coin comet comic copper coral cotton
couch county coupon cousin cream credit crisp crown cube curve daily dairy daisy dance danger dawn debate
deer denim desert desk dial diary diesel diet dinner disco dock doctor dollar donkey door dragon drama dream
drink driver drum duck dust duty eagle early earth east easy echo editor eight elbow elder engine entry epic
equal essay event exit expert extra fabric factor falcon family farm fast father feast fence ferry fiber
field film filter final finger fire fish flag flame flash fleet flight flint floor flour flower focus folder
forest fork fossil frame fresh friend frog frost fruit fuel future galaxy garage garden garlic gate gear
genius giant gift ginger glass globe glory glove gold golf grain grape grass gravel green grid group guard
guest guide guitar gypsy habit hammer harbor hat hawk hazel heart height help herald hero hill hobby honey
hook horse hotel house humor hunter ice icon idea igloo image inch index ink inlet insect iron island ivory
ivy jacket jaguar jam jar jazz jelly jewel job join joker judge juice jump jungle junior jury kayak kennel
kettle key king kiosk kite kitten knee knife knight koala label ladder lake lamp lane laptop large laser
laurel lawn leaf legend lemon lens letter level lily lime linen lion liquid list lobby local locker lodge
logic lotus lucky lunar lunch magic magnet mail major mango maple marble march margin market mask master
match meadow medal melody melon menu metal meteor metro middle milk mill mint mirror model modern moment
money monkey moon motel motor mouse museum music napkin nation nature navy nectar needle nephew nest nickel
night noble noise north notice novel number nurse nylon oasis oath oats object ocean office olive onion open
opera orange orbit orchid organ outlet oval oven owner oxygen oyster packet paint palace panda panel paper
parade parcel park parrot party pasta patrol peace peach pearl pencil pepper phone photo piano picnic pigeon
pillow pilot pirate pizza planet plate plaza plum pocket poet police pond pony potato powder press prince
prize public pump pupil puzzle quail quartz queen quest quick quiet quilt quota quote rabbit radio rail rain
ranch ranger rapid razor record reef remedy rent result reward rhythm ribbon rice ridge ring river road
robin robot rocket roof rose round route royal ruby rug rural rustic saddle safari salad salmon salt sample
sand satin sauce scarf school screen season second senior shadow shark sheep shelf ship shop shore shrimp
signal silk silver singer sister sketch slope smart smile smoke snack snow soap soccer socket soda solar
sound soup south space spice spider spoon sport spring square squash stable stage stamp star steam steel
stone store storm street studio sugar summer sunset surf swan sweet swim symbol table talent tank target
taxi temple tennis tent ticket tiger timber title toast today token tomato tools topaz torch total tower
town track trade trail train travel tree tribe truck tulip tunnel turkey turtle tutor twelve twin uncle
union unique unit upper urban urgent useful usual vacuum valley value vapor vault vector velvet vendor verse
video view villa vinyl violet violin virtue vision visit vista vocal voice volume voyage waffle wagon walnut
walrus warm water wealth weasel west whale wheat wheel white wide willow wind window wine winter wolf wonder
wood wool world xenon yacht yard yarn yeast yellow yoga young youth zebra zero zinc zone zoo
"""


def _held_out(word: str) -> bool:
    """About two words in five, by a checksum of the word itself, so that adding a word moves no other one."""
    return zlib.crc32(word.encode()) % 5 < 2


ALL = tuple(word.upper() for word in _WORDS.split())
"""Every word, 3 to 6 letters, uppercase."""
TRAINING = tuple(word for word in ALL if not _held_out(word))
EVALUATION = tuple(word for word in ALL if _held_out(word))
"""Held out: no training image shows one of these, not even by chance."""
