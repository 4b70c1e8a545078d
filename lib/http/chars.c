// SPDX-License-Identifier: Apache-2.0
#include "lib/http/chars.h"

enum { T = CH_TOKEN, P = CH_PATH, H = CH_HOST, X = CH_HEX, D = CH_DIGIT };

const uint8_t http_chars[256] = {
    ['0' ... '9'] = T | P | H | X | D,
    ['A' ... 'F'] = T | P | H | X,
    ['G' ... 'Z'] = T | P | H,
    ['a' ... 'f'] = T | P | H | X,
    ['g' ... 'z'] = T | P | H,
    ['!'] = T | P | H, ['"'] = P, ['#'] = T, ['$'] = T | P | H, ['%'] = T | P, ['&'] = T | P | H, ['\''] = T | P | H,
    ['('] = P | H, [')'] = P | H, ['*'] = T | P | H, ['+'] = T | P | H, [','] = P, ['-'] = T | P | H, ['.'] = T | P | H,
    ['/'] = P, [':'] = P, [';'] = P | H, ['<'] = P, ['='] = P | H, ['>'] = P, ['?'] = P, ['@'] = P, ['['] = P, ['\\'] = P,
    [']'] = P, ['^'] = T | P, ['_'] = T | P | H, ['`'] = T | P, ['{'] = P, ['|'] = T | P, ['}'] = P, ['~'] = T | P | H,
};
