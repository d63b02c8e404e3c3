"""The only room that imports llama_cpp. It checks everything before it calls.

A wrong call into llama.cpp aborts the process with all its sessions, so every
argument is compared with what the library can take, and every buffer handed to
it was built and verified here.
"""
