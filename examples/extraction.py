"""Twenty texts become twenty objects, decoded together; each is valid, whatever the model makes of its text."""

from pydantic import BaseModel, Field

from local_llms import ChatLocal

NAMES = ["Anna", "Bob", "Carla", "David", "Erick", "Fatima", "Georg", "Hanna", "Ivan", "Julia"]
TEXTS = [f"{name} is {20 + 3 * number} years old and lives in Rome." for number, name in enumerate(NAMES)]
TEXTS += [f"My name is {name}, and I am {31 + number}." for number, name in enumerate(NAMES)]


class Person(BaseModel):
    """Someone in a text."""

    name: str = Field(description="first name", max_length=20)
    age: int = Field(description="age in years", ge=0, le=120)


def main() -> list[Person]:
    with ChatLocal(temperature=0, max_tokens=60) as model:
        found = model.with_structured_output(Person).batch([*TEXTS])
    people = [Person.model_validate(one) for one in found]
    for text, person in zip(TEXTS, people, strict=True):
        print(f"{text} → {person!r}")
    return people


if __name__ == "__main__":
    main()
