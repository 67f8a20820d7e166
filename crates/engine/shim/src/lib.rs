//! Starts the containers of one sandbox and stays beside them: stdio, logs, exits.
