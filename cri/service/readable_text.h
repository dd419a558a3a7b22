// What the last step before gRPC makes of a message, wherever it came from and whatever it quotes.
#ifndef HUSK_CRI_SERVICE_READABLE_TEXT_H_
#define HUSK_CRI_SERVICE_READABLE_TEXT_H_

#include <string>
#include <string_view>

namespace husk::cri {

// UTF-8 that shows what it is: bytes that are not UTF-8, control characters (DEL, those above 0x7f and line breaks
// among them) and characters that change how others look (marks of direction, of no width, byte order) become "\xNN", a
// line break "\n". Everything else stays, backslashes too: this is for reading, not for taking apart.
std::string ReadableText(std::string_view text);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_READABLE_TEXT_H_
