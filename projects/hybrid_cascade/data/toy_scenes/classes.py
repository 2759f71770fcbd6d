"""The classes of the toy scenes, and the rule that ties a class to its outline and surroundings."""

THING_CLASSES = ("ball", "buoy", "tent", "sail", "kite")
STUFF_CLASSES = ("sky", "grass", "sand", "water")
# Label maps number the things first, then the stuff.
SEMANTIC_CLASSES = THING_CLASSES + STUFF_CLASSES
STUFF_LABELS = range(len(THING_CLASSES), len(SEMANTIC_CLASSES))
IGNORE_LABEL = 255
# The RGB colors that visualizations give to the classes. The scenes have colors of their own.
COLORS = {
    "ball": (220, 60, 50),
    "buoy": (250, 140, 20),
    "tent": (150, 70, 190),
    "sail": (245, 225, 60),
    "kite": (230, 80, 160),
    "sky": (150, 200, 240),
    "grass": (80, 150, 60),
    "sand": (220, 195, 140),
    "water": (40, 90, 150),
}

# Positions in STUFF_CLASSES.
SKY, GRASS, SAND, WATER = range(len(STUFF_CLASSES))
LAND = (GRASS, SAND)

# The rule of the scenes: outline and surroundings together make the class.
OUTLINES = {
    "ball": "disc",
    "buoy": "disc",
    "tent": "triangle",
    "sail": "triangle",
    "kite": "diamond",
}
HOMES = {
    "ball": LAND,
    "buoy": (WATER,),
    "tent": LAND,
    "sail": (WATER,),
    "kite": (SKY,),
}
