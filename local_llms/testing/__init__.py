"""For tests of your own: a backend without weights, a model behind it, and what every backend promises.

========================  ==============================================================================
``scripted``              ``ScriptedBackend``, which answers as it is told; ``say`` and other scripts
``scripted_model``        ``scripted_model``: such a backend as ``model=`` of anything that takes a model
``backend_contract``      ``BackendContract`` and ``EmbeddingContract``, for pytest, of a backend
``sequence_contract``     their part about computing; ``vocabulary_contract``: about text and ids
``adapter_contract``      ``AdapterContract``: adapters that are chosen per request
``llama_index_contract``  ``LLMContract``, ``FunctionCallingContract``: what llama-index expects of an LLM
========================  ==============================================================================

Nothing is imported here; the contracts need pytest.
"""
