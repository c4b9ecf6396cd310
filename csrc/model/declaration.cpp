#include "model/declaration.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace equistride {
namespace {

constexpr int OPERATOR_VERSION = 1; // of all our operators: none's schema has changed since it was first released

const std::string TOTAL = "equistride::total", LAYOUT = "equistride::edge_block_pack";

bool is_there(const std::string &name) { return c10::Dispatcher::singleton().findOp({name, ""}).has_value(); }

std::shared_ptr<torch::jit::Graph> inlined(const torch::jit::Method &method) {
    const torch::jit::GraphOptimizerEnabledGuard whole(true); // without, what a callee calls is left as a call
    const auto graph = method.graph()->copy();
    torch::jit::Inline(*graph);
    return graph;
}

void collect_operators(const torch::jit::Block &block, std::set<std::string> &names) {
    for (const torch::jit::Node *node : block.nodes()) {
        const std::string name = node->kind().toQualString();
        if (name.starts_with("equistride::"))
            names.insert(name);
        for (const torch::jit::Block *inner : node->blocks())
            collect_operators(*inner, names);
    }
}

/// On the longest way through branches, of which one is taken.
int count_exchanges(const torch::jit::Block &block) {
    static const auto exchange = c10::Symbol::fromQualString("equistride::exchange");
    int count = 0;
    for (const torch::jit::Node *node : block.nodes()) {
        count += node->kind() == exchange;
        int most = 0;
        for (const torch::jit::Block *inner : node->blocks())
            most = std::max(most, count_exchanges(*inner));
        count += most;
    }
    return count;
}

/// Whether a part lies in a module of somebody else, whose lengths may have another unit.
bool is_foreign(const std::string &path) {
    const std::string inside = "." + path + ".";
    return inside.find(".foreign.") != std::string::npos;
}

double number(const torch::jit::Module &part, const char *name) { return part.attr(name).toDouble(); }

std::string text(double value) { return c10::str(value, " A"); }
std::string text(bool value) { return value ? "yes" : "no"; }

} // namespace

Observed observe(const torch::jit::Module &module, bool potential) {
    Observed seen;
    const char *const method = potential ? "atomic_energies" : "free_stride";
    const bool divides = module.find_method(method).has_value();
    const bool direct = module.find_method("energies_and_forces").has_value();
    bool capped = false, watched = false, keeps = true, narrows = false;
    std::unordered_set<const void *> inner; // parts that get a choice of the edges and may have a shorter cutoff
    for (const auto &[path, part] : module.named_modules()) {
        if (part.hasattr("narrows") && part.attr("narrows").toBool()) {
            narrows = true;
            for (const torch::jit::Module &below : part.children())
                for (const torch::jit::Module &each : below.modules())
                    inner.insert(each._ivalue().get());
        }
        if (!is_foreign(path) && part.hasattr("cutoff") && part.attr("cutoff").isDouble() &&
            !inner.contains(part._ivalue().get()))
            seen.cutoffs.push_back(number(part, "cutoff"));
        if (part.hasattr("checked")) {
            watched = true;
            seen.looks.push_back(part);
        }
        if (part.hasattr("max_speed"))
            seen.limits.fastest_atom = number(part, "max_speed");
        if (part.hasattr("shortest") && part.hasattr("tabled") && part.attr("tabled").toBool())
            seen.limits.shortest_bond = number(part, "shortest");
        if (part.hasattr("keep_spin"))
            keeps = part.attr("keep_spin").toBool();
        capped |= part.hasattr("max_neighbors") && part.attr("max_neighbors").toInt() > 0;
        if (const auto pack = part.find_method("pack")) {
            std::set<std::string> called;
            collect_operators(*pack->graph()->block(), called);
            (called.contains(LAYOUT) ? seen.layouts : seen.packs).push_back(part);
        }
        if (part.find_method("set_system"))
            seen.charged.push_back(part);
        seen.charge_spin |= part.hasattr("charge") && part.hasattr("spin");
        for (const torch::jit::Method &each : part.get_methods())
            collect_operators(*each.graph()->block(), seen.operators);
    }
    seen.decomposable = divides && !direct;
    seen.uncertainty = module.find_method("uncertainty").has_value();
    // A cap on neighbours counts them, a choice of the edges has no size beforehand, and older exports of propagators
    // look at lengths and speeds whatever they are told: all wait for a GPU.
    seen.padded = seen.decomposable && !capped && !narrows && (potential || watched);
    seen.angular_momentum = !potential && seen.decomposable && keeps;
    for (const torch::jit::Method &each : module.get_methods()) { // with the functions that they call
        const auto graph = inlined(each);
        collect_operators(*graph->block(), seen.operators);
        if (each.name() == method)
            seen.exchanges = count_exchanges(*graph->block());
    }
    if (!potential && module.hasattr("stride_fs") && module.attr("stride_fs").isDouble()) {
        seen.stride = number(module, "stride_fs");
        seen.strides = {seen.stride};
        if (module.hasattr("strides_fs") && module.attr("strides_fs").isDoubleList() &&
            module.find_method("set_stride"))
            seen.strides = module.attr("strides_fs").toDoubleVector();
    }
    seen.batched = potential && seen.decomposable && !seen.operators.contains(TOTAL);
    return seen;
}

void refuse_unless(bool so, const std::string &name, const char *what, const std::string &found,
                   const std::string &declared) {
    TORCH_CHECK_VALUE(so, name, " declares in metadata.json what its module is not: ", what, "; expected ", found,
                      ", as the module has it; found ", declared, "; export the model again");
}

void check_operators(const Metadata &metadata, const std::string &name) {
    for (const auto &[op, version] : metadata.contract.operators) {
        TORCH_CHECK_VALUE(op.starts_with("equistride::") && is_there(op), name, " needs the operator ", op,
                          ", which this equistride does not have; update equistride");
        TORCH_CHECK_VALUE(version <= OPERATOR_VERSION, name, " needs the operator ", op, " in version ", version,
                          "; expected at most ", OPERATOR_VERSION, "; update equistride");
    }
}

void hold_against(Metadata &metadata, const Observed &module, const std::string &name) {
    Contract &contract = metadata.contract;
    for (const double cutoff : module.cutoffs)
        refuse_unless(std::abs(cutoff - metadata.cutoff) <= 1e-9 * cutoff, name, "the cutoff", text(cutoff),
                      text(metadata.cutoff));
    const std::vector<double> &strides = module.strides;
    refuse_unless(strides == metadata.strides_fs || (strides.empty() && metadata.strides_fs.size() < 2), name,
                  "strides_fs", strides.empty() ? "one stride" : c10::Join(", ", strides) + " fs",
                  metadata.strides_in_words() + " fs");
    refuse_unless(strides.empty() || module.stride == metadata.stride_fs, name, "stride_fs",
                  c10::str(module.stride, " fs"), c10::str(metadata.stride_fs, " fs"));
    const int steps = module.exchanges / metadata.members + 1;
    const bool sums = module.operators.contains(TOTAL);
    if (metadata.format_version == 1) { // what its reader has of steps and limits stays where it says more
        contract.message_passing_steps = std::max(contract.message_passing_steps, steps);
        metadata.range = contract.message_passing_steps * metadata.cutoff;
        contract.global_sums = sums; // how many, its reader has
        contract.decomposable = module.decomposable;
        contract.padded = module.padded;
        contract.batched = module.batched;
        contract.uncertainty = module.uncertainty;
        contract.angular_momentum = module.angular_momentum;
        if (metadata.charge_spin == Metadata::ChargeSpin::input && !module.charge_spin)
            metadata.charge_spin = Metadata::ChargeSpin::fixed;
        contract.limits.shortest_bond = module.limits.shortest_bond;
        if (module.limits.fastest_atom > 0)
            contract.limits.fastest_atom = module.limits.fastest_atom;
        for (const std::string &op : module.operators)
            contract.operators[op] = OPERATOR_VERSION;
        return;
    }
    refuse_unless(module.exchanges == 0 || contract.message_passing_steps == steps, name, "message_passing_steps",
                  std::to_string(steps), std::to_string(contract.message_passing_steps));
    refuse_unless(!sums || contract.global_sums > 0, name, "global_sums", "1 or more", "0");
    // Sums of another kind know of no other processes and no padding.
    refuse_unless(sums || contract.global_sums == 0 || !contract.decomposable, name, "capabilities.decomposable",
                  text(false), text(true));
    // What is declared must be so; what is not declared is not used.
    for (const auto &[what, declared, so] :
         {std::tuple{"capabilities.decomposable", contract.decomposable, module.decomposable},
          std::tuple{"capabilities.padded", contract.padded, module.padded},
          std::tuple{"capabilities.batched", contract.batched, module.batched},
          std::tuple{"capabilities.uncertainty", contract.uncertainty, module.uncertainty},
          std::tuple{"capabilities.angular_momentum", contract.angular_momentum, module.angular_momentum}})
        refuse_unless(so || !declared, name, what, text(so), text(declared));
    refuse_unless(metadata.charge_spin != Metadata::ChargeSpin::input || module.charge_spin, name, "charge_spin",
                  "none", "input");
    for (const auto &[what, declared, so] :
         {std::tuple{"limits.shortest_bond", contract.limits.shortest_bond, module.limits.shortest_bond},
          std::tuple{"limits.fastest_atom", contract.limits.fastest_atom, module.limits.fastest_atom}})
        refuse_unless(so == 0 || std::abs(declared - so) <= 1e-9 * so, name, what, c10::str(so), c10::str(declared));
    for (const std::string &op : module.operators)
        refuse_unless(contract.operators.contains(op), name, "operators", op, "none of this name");
    for (const auto &[op, version] : contract.operators)
        refuse_unless(module.operators.contains(op), name, "operators", "none of this name", op);
}

} // namespace equistride
