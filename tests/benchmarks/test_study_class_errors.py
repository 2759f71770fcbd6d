from study_class_errors import class_errors

BALL, BUOY, TENT, SAIL, KITE = range(1, 6)


def at(number: int, category: int, image_id: int = 1, **more) -> dict:
    """Return the place with this number, with a class."""
    return {"image_id": image_id, "category_id": category, "bbox": [30 * number, 0, 20, 20], **more}


def test_an_object_is_taken_for_the_class_of_its_best_detection():
    objects = [at(0, BALL), at(1, TENT), at(2, BALL), at(3, KITE), at(4, BUOY, image_id=2)]
    crowd = at(5, BALL, iscrowd=1)
    annotations = [x | {"iscrowd": 0} for x in objects] + [crowd]
    detections = [
        at(0, BALL, score=0.3),
        at(0, BUOY, score=0.9),
        at(1, TENT, score=0.2),
        at(2, SAIL, score=0.9) | {"bbox": [65, 0, 20, 20]},  # IoU 0.6
        at(2, BALL, score=0.1),
        at(3, KITE, score=0.9) | {"bbox": [98, 0, 20, 20]},  # IoU 0.43
        at(4, BUOY, score=0.9),  # in another image
        at(5, BUOY, score=0.9),
    ]
    found = class_errors(annotations, detections)
    assert found == {"right": 20, "surroundings": 20, "outline": 20, "missed": 40}
