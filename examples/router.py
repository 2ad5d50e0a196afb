"""A router: the model chooses one of several words and can say nothing else; each word has a chain of its own."""

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from local_llms import ChatLocal

TOPICS = ["cooking", "sports", "computers"]
QUESTIONS = ["How long do I boil an egg?", "Who won the football match?", "My laptop does not start."]


def main() -> dict[str, str]:
    with ChatLocal(temperature=0, max_tokens=40) as model:
        question = "Which topic is this about: " + ", ".join(TOPICS) + "?\n\n{question}"
        choose = ChatPromptTemplate.from_messages([("user", question)]) | model.bind(choices=TOPICS)
        answers = {
            topic: ChatPromptTemplate.from_messages([("user", f"You know all about {topic}. {{question}}")]) | model
            for topic in TOPICS
        }
        route = RunnablePassthrough.assign(topic=choose) | RunnableLambda(lambda found: answers[found["topic"].text])
        chosen = {}
        for asked in QUESTIONS:
            chosen[asked] = str(choose.invoke({"question": asked}).text)
            print(f"{asked} → {chosen[asked]}: {route.invoke({'question': asked}).text}")
    return chosen


if __name__ == "__main__":
    main()
