#include "model/loops.h"

#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/custom_operator.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace equistride {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t TURNS_BETWEEN_LOOKS_AT_THE_CLOCK = 16;
constexpr const char *TURN = "equistride_loops::turn";

thread_local std::int64_t left = std::numeric_limits<std::int64_t>::max();
thread_local Clock::time_point deadline = Clock::time_point::max();

void turn(torch::jit::Stack &) {
    TORCH_CHECK_VALUE(--left > 0, "the loops of the model's code do not end: expected at most ", LoopBound::MOST_TURNS,
                      " turns in one evaluation; do not trust this file, or export the model without that loop");
    TORCH_CHECK_VALUE(left % TURNS_BETWEEN_LOOKS_AT_THE_CLOCK || Clock::now() < deadline,
                      "the loops of the model's code do not end within the time of a self-test; do not trust this "
                      "file, or set EQUISTRIDE_SELF_TEST_SECONDS to the seconds that they need");
}

// Only the interpreter's list has it: code of a file that names it is refused, and CONSERVATIVE keeps it where it is.
const torch::jit::RegisterOperators
    registered({torch::jit::Operator(std::string(TURN) + "() -> ()", turn, c10::AliasAnalysisKind::CONSERVATIVE)});

void count_turns(torch::jit::Graph &graph, torch::jit::Block &block) {
    for (torch::jit::Node *node : block.nodes())
        for (torch::jit::Block *inner : node->blocks()) {
            count_turns(graph, *inner);
            if (node->kind() == c10::prim::Loop)
                inner->prependNode(graph.create(c10::Symbol::fromQualString(TURN), 0));
        }
}

} // namespace

void count_turns(torch::jit::CompilationUnit &unit) {
    for (torch::jit::Function *function : unit.get_functions())
        if (function->isGraphFunction()) {
            torch::jit::Graph &graph = *torch::jit::toGraphFunction(*function).graph();
            count_turns(graph, *graph.block());
        }
}

LoopBound::LoopBound() : before_(left) { left = std::min(left, MOST_TURNS); }

LoopBound::~LoopBound() { left = before_; }

LoopDeadline::LoopDeadline() : before_(deadline) {
    const char *const given = std::getenv("EQUISTRIDE_SELF_TEST_SECONDS");
    const double seconds = given ? std::atof(given) : 0;
    deadline = Clock::now() + std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * (seconds > 0 ? seconds : 30)));
}

LoopDeadline::~LoopDeadline() { deadline = before_; }

} // namespace equistride
