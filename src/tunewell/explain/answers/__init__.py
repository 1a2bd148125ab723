"""Why an answer that is not a class: spans of question answering, written answers, classes by likelihood."""
