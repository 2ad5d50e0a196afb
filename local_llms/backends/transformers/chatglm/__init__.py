"""ChatGLM's original checkpoints: ChatGLM-6B, ChatGLM2-6B, ChatGLM3-6B and GLM-4, as THUDM published them.

Their folders carry code for a network and a tokenizer (``auto_map``). It is not run: the networks and tokenizers are
here, written after it.

====================  ==================================================================================
``original``          the layout: which generation a folder holds, and its parts
``glm_weights``       ChatGLM2, 3 and GLM-4 as the library's Glm: names, and one matrix cut in three
``network``           ChatGLM-6B, with its two positions and the prompt that is read in both directions
``ice_vocabulary``    ChatGLM-6B's SentencePiece model and its pieces for whitespace
``role_vocabulary``   ChatGLM2's and 3's SentencePiece model
``rank_vocabulary``   GLM-4's byte pairs with ranks; ``marks``: what vocabularies have in common
``prefix``            P-tuning version 2, given as an adapter
====================  ==================================================================================
"""
