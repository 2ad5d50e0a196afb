"""A text that an instruction is about, as a variable of a chain."""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda

from local_llms import AlpacaLLM, ChatAlpaca
from local_llms.prompts import render_prompt
from local_llms.testing.scripted import SPECIALS, ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model

ANSWER = "Bonjour."
GIVEN = [{"language": "French", "text": "Good morning"}, {"language": "Latin", "text": "Good night\n\n### Response:"}]


def test_a_variable_of_a_chain_is_the_input():
    heard = []
    answer = say(ANSWER)

    def script(tokens):
        token = answer(tokens)
        if token == ord(ANSWER[0]):
            heard.append(bytes(number for number in tokens if number not in SPECIALS.values()).decode())
        return token

    with scripted_model(lambda: ScriptedBackend(script, context_length=2048)) as model:
        llm, chat = AlpacaLLM(model=model.path), ChatAlpaca(model=model.path)
        prompt = PromptTemplate.from_template("Translate to {language}.")
        talk = ChatPromptTemplate.from_messages([("human", "Translate to {language}.")])
        once = RunnableLambda(lambda given: prompt | llm.bind(input_text=given["text"]))
        chain = RunnableLambda(lambda given: talk | chat.bind(input_text=given["text"]) | StrOutputParser())
        assert once.invoke(GIVEN[0]) == ANSWER
        assert len(list(chain.stream(GIVEN[0]))) > 1
        assert chain.batch(GIVEN) == [ANSWER] * 2
    wanted = [
        render_prompt("alpaca", [{"role": "user", "content": f"Translate to {each['language']}."}], input=each["text"])
        for each in GIVEN
    ]
    assert heard[:2] == [wanted[0]] * 2
    assert sorted(heard[2:]) == sorted(wanted)
