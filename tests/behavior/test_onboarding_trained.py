"""A trained deployment asks a new user what teaches most, and its first slate after three answers uses them."""

from handsell.onboarding.question_model import QuestionModel
from serving_service import start_service


async def read_slate(client, user_id):
    answer = (await client.post("/v1/recommendations", json={"user_id": user_id, "count": 10})).json()
    return answer["cold_start"], [item["item_id"] for item in answer["items"]]


async def test_three_answers_change_the_first_slate(deployment):
    model = QuestionModel.load(deployment.path / "onboarding")
    assert model is not None and len(model) > 50 and len(model.share) > 1
    async with start_service(deployment) as (client, _):
        asked: list[str] = []
        for _ in range(3):
            found = (await client.get("/v1/onboarding", params={"user_id": "fresh", "n": 1, "exclude": asked})).json()
            assert found["degraded"] == [] and found["answers"] == len(asked)
            (question,) = found["items"]
            assert question["item_id"] not in asked and 0 < question["score"] <= 1
            asked.append(question["item_id"])
            event = {"type": "like", "user_id": "fresh", "item_id": asked[-1]}
            assert (await client.post("/v1/events", json={"events": [event]})).status_code == 202
        (cold, slate), (unknown, popular) = await read_slate(client, "fresh"), await read_slate(client, "nobody")
        assert not cold and unknown and slate != popular
