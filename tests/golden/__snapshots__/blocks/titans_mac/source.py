# NL0701: not supported by the compiler yet: softmax memory `A` on a cycle
