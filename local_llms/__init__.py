"""Language models on your own machine, for LangChain and llama-index."""
