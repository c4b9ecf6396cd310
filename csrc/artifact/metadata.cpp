#include "artifact/metadata.h"

#include "artifact/json.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>

namespace equistride {
namespace {

constexpr int MOST_STEPS = 64; // of messages: the trial at load walks a chain of atoms as long as that

class Reader {
public:
    Reader(const json::Object &object, std::string name) : object_(object), name_(std::move(name)) {}

    std::string where(const std::string &key) const { return c10::str("key '", key, "' in metadata.json of ", name_); }

    const json::Value *find(const std::string &key) const {
        const auto it = object_.find(key);
        return it == object_.end() || it->second.is_null() ? nullptr : &it->second;
    }

    const json::Value &need(const std::string &key) const {
        const json::Value *value = find(key);
        TORCH_CHECK_VALUE(value, where(key), " is missing; export the model again");
        return *value;
    }

    std::string string(const std::string &key) const { return need(key).string(where(key)); }
    double number(const std::string &key) const { return need(key).number(where(key)); }

    int count(const std::string &key, int least, int most = std::numeric_limits<int>::max()) const {
        const std::int64_t value = need(key).integer(where(key));
        TORCH_CHECK_VALUE(value >= least && value <= most, where(key), " makes no sense; expected a whole number from ",
                          least, most < std::numeric_limits<int>::max() ? c10::str(" to ", most) : " on", "; found ",
                          value, "; export the model again");
        return static_cast<int>(value);
    }

    bool flag(const std::string &key) const { return find(key) && find(key)->boolean(where(key)); }

    std::vector<std::string> keys() const {
        std::vector<std::string> all;
        for (const auto &entry : object_)
            all.push_back(entry.first);
        return all;
    }

    const std::string &name() const { return name_; }

    double positive(const std::string &key) const {
        const double value = number(key);
        TORCH_CHECK_VALUE(value > 0, where(key), " makes no sense; expected a positive number; found ", value,
                          "; export the model again");
        return value;
    }

    std::string one_of(const std::string &key, const std::vector<std::string> &choices) const {
        std::string value = string(key);
        TORCH_CHECK_VALUE(std::find(choices.begin(), choices.end(), value) != choices.end(), where(key),
                          " is not known; expected one of ", c10::Join(", ", choices), "; found '", value,
                          "'; export the model again or update equistride");
        return value;
    }

private:
    const json::Object &object_;
    std::string name_;
};

void check_units(const Reader &reader) {
    static const std::pair<const char *, const char *> EXPECTED[] = {
        {"length", "angstrom"}, {"energy", "eV"}, {"time", "fs"}, {"mass", "amu"}};
    const json::Value *units = reader.find("units");
    if (!units)
        return;
    const json::Object &table = units->object(reader.where("units"));
    for (const auto &[quantity, unit] : EXPECTED) {
        const auto it = table.find(quantity);
        if (it == table.end())
            continue;
        const std::string &found = it->second.string(reader.where("units"));
        TORCH_CHECK_VALUE(found == unit, "the unit of ", quantity, " in the artifact is not ours; expected ", unit,
                          "; found ", found, "; export the model again");
    }
}

// A member that is an object, read by `read`.
template <class Read> void section(const Reader &reader, const std::string &key, Read read) {
    if (const json::Value *value = reader.find(key))
        read(Reader(value->object(reader.where(key)), c10::str("'", key, "' of ", reader.name())));
}

void read_charge_spin(const Reader &reader, Metadata &m) {
    section(reader, "system", [&](const Reader &system) {
        if (system.find("charge") && system.find("spin")) {
            m.charge_spin = Metadata::ChargeSpin::input;
            m.charge = system.number("charge");
            m.spin = system.number("spin");
        }
    });
    if (m.format_version == 1)
        return;
    const std::string said = reader.one_of("charge_spin", {"none", "input", "fixed"});
    TORCH_CHECK_VALUE((said == "none") == (m.charge_spin == Metadata::ChargeSpin::none), reader.where("charge_spin"),
                      " is '", said, "', and 'system' with the values does not fit; export the model again");
    if (said == "fixed")
        m.charge_spin = Metadata::ChargeSpin::fixed;
}

void read_compiled(const Reader &reader, Metadata &m) {
    section(reader, "compiled", [&](const Reader &facts) {
        Compiled compiled{facts.string("torch"), facts.string("device"), facts.string("machine"),
                          facts.one_of("instruction_set", {"portable", "avx2", "avx512"})};
        compiled.exchanges = facts.count("exchanges", 0);
        if (facts.find("cutoff"))
            compiled.cutoff = facts.positive("cutoff");
        if (m.format_version == 1 && facts.find("shortest"))
            m.contract.limits.shortest_bond = facts.positive("shortest");
        m.compiled = compiled;
    });
}

void read_composition(const Reader &reader, Metadata &m) {
    section(reader, "composition", [&](const Reader &facts) {
        Composition composition;
        for (const auto &[symbol, number] : facts.need("elements").object(facts.where("elements")))
            composition.elements[symbol] = static_cast<int>(number.integer(facts.where("elements")));
        if (facts.find("atoms"))
            composition.atoms = facts.count("atoms", 1);
        for (const auto &[symbol, number] : composition.elements) {
            m.species_index(symbol);
            TORCH_CHECK_VALUE(number > 0, facts.where("elements"), " needs whole numbers above 0; found ", number,
                              " of ", symbol, "; export the model again");
        }
        m.composition = composition;
    });
}

void read_strides(const Reader &reader, Metadata &m) {
    m.stride_fs = reader.positive("stride_fs");
    if (const json::Value *several = reader.find("strides_fs"))
        m.strides_fs = several->numbers(reader.where("strides_fs"));
    if (m.strides_fs.empty())
        m.strides_fs = {m.stride_fs};
    double last = 0;
    for (const double stride : m.strides_fs) {
        TORCH_CHECK_VALUE(stride > last && std::isfinite(stride), reader.where("strides_fs"),
                          " makes no sense; expected times above 0, the shortest first; found ",
                          c10::Join(", ", m.strides_fs), "; export the model again");
        last = stride;
    }
    TORCH_CHECK_VALUE(std::find(m.strides_fs.begin(), m.strides_fs.end(), m.stride_fs) != m.strides_fs.end(),
                      reader.where("stride_fs"), " is none of 'strides_fs'; expected ", m.strides_in_words(),
                      "; found ", m.stride_fs, "; export the model again");
}

void read_contract(const Reader &reader, Metadata &m) {
    Contract &contract = m.contract;
    contract.message_passing_steps = reader.count("message_passing_steps", 1, MOST_STEPS);
    contract.global_sums = reader.count("global_sums", 0);
    section(reader, "capabilities", [&](const Reader &can) {
        contract.decomposable = can.flag("decomposable");
        contract.padded = can.flag("padded");
        contract.batched = can.flag("batched");
        contract.uncertainty = can.flag("uncertainty");
        contract.angular_momentum = can.flag("angular_momentum");
    });
    section(reader, "limits", [&](const Reader &limits) {
        for (const auto &[key, limit] : {std::pair{"shortest_bond", &contract.limits.shortest_bond},
                                         std::pair{"fastest_atom", &contract.limits.fastest_atom},
                                         std::pair{"smallest_box", &contract.limits.smallest_box}})
            if (limits.find(key))
                *limit = limits.positive(key);
    });
    section(reader, "operators", [&](const Reader &operators) {
        for (const std::string &name : operators.keys())
            contract.operators[name] = operators.count(name, 1);
    });
    const bool all = reader.need("interaction_range").is_string();
    if (all)
        reader.one_of("interaction_range", {"all"});
    else
        m.range = reader.positive("interaction_range");
    TORCH_CHECK_VALUE(all == (contract.global_sums > 0), reader.where("interaction_range"), " does not fit ",
                      contract.global_sums, " sums over all atoms; expected \"all\" where there are such sums, and a ",
                      "length where there are none; export the model again");
    const double expected = contract.message_passing_steps * m.cutoff;
    TORCH_CHECK_VALUE(all || std::abs(*m.range - expected) <= 1e-6 * expected, reader.where("interaction_range"),
                      " is not that of ", contract.message_passing_steps, " steps of the cutoff; expected ", expected,
                      " A; found ", all ? 0.0 : *m.range, " A; export the model again");
}

// Format 1 says how far an energy looks, and how fast an atom may be; all else is read off the module.
void read_format1(const Reader &reader, Metadata &m) {
    const int layers = reader.find("num_layers") ? reader.count("num_layers", 0) : 1;
    m.range = reader.find("interaction_range") ? reader.positive("interaction_range") : m.cutoff * std::max(1, layers);
    const double steps = *m.range / m.cutoff;
    TORCH_CHECK_VALUE(steps <= MOST_STEPS, reader.where("interaction_range"), " makes no sense; expected at most ",
                      MOST_STEPS, " cutoffs; found ", steps, "; export the model again");
    m.contract.message_passing_steps = std::max(1, static_cast<int>(std::lround(steps)));
    if (reader.find("max_speed"))
        m.contract.limits.fastest_atom = reader.positive("max_speed");
}

} // namespace

int Metadata::species_index(const std::string &symbol) const {
    const auto it = std::find(species.begin(), species.end(), symbol);
    TORCH_CHECK_VALUE(it != species.end(), "the model does not know the element ", symbol, "; expected one of ",
                      c10::Join(", ", species), "; train or choose a model with ", symbol);
    return static_cast<int>(it - species.begin());
}

std::optional<std::size_t> Metadata::stride_index(double timestep_fs) const {
    for (std::size_t k = 0; k < strides_fs.size(); k++)
        if (std::abs(timestep_fs - strides_fs[k]) <= SAME_STRIDE * strides_fs[k])
            return k;
    return {};
}

std::string Metadata::strides_in_words(double unit) const {
    std::ostringstream words;
    words.precision(10);
    for (std::size_t k = 0; k < strides_fs.size(); k++)
        words << (k == 0 ? "" : k + 1 == strides_fs.size() ? " or " : ", ") << strides_fs[k] / unit;
    return words.str();
}

Metadata read_metadata(const std::string &text, const std::string &name) {
    const json::Value document = json::parse(text, "metadata.json of " + name);
    const Reader reader(document.object("metadata.json of " + name), name);
    TORCH_CHECK_VALUE(reader.string("format") == "equistride", name,
                      " is no equistride artifact; expected the format 'equistride'; found '", reader.string("format"),
                      "'; export the model with equistride");
    Metadata m;
    m.text = text;
    m.format_version = static_cast<int>(reader.need("format_version").integer(reader.where("format_version")));
    TORCH_CHECK_VALUE(m.format_version >= 1 && m.format_version <= FORMAT_VERSION, name,
                      " has a format that this equistride cannot read; expected a version up to ", FORMAT_VERSION,
                      "; found ", m.format_version, "; update equistride");
    m.kind = reader.one_of("kind", {"potential", "propagator"});
    m.architecture = reader.find("architecture") ? reader.string("architecture") : "";
    for (const json::Value &symbol : reader.need("species").array(reader.where("species")))
        m.species.push_back(symbol.string(reader.where("species")));
    TORCH_CHECK_VALUE(!m.species.empty(), reader.where("species"), " is empty; export the model again");
    if (const json::Value *masses = reader.find("masses"))
        m.masses = masses->numbers(reader.where("masses"));
    TORCH_CHECK_VALUE(m.masses.empty() || m.masses.size() == m.species.size(), reader.where("masses"),
                      " has the wrong length; expected ", m.species.size(), "; found ", m.masses.size(),
                      "; export the model again");
    m.cutoff = reader.positive("cutoff");
    m.dtype = reader.one_of("dtype", {"float32", "float64"});
    check_units(reader);
    if (reader.find("periodic"))
        m.requires_box = reader.one_of("periodic", {"any", "required"}) == "required";
    if (reader.find("members"))
        m.members = reader.count("members", 1);
    if (reader.find("digest"))
        m.digest = reader.one_of("digest", {"sha256"}) == "sha256";
    read_charge_spin(reader, m);
    read_compiled(reader, m);
    read_composition(reader, m);
    (m.format_version == 1 ? read_format1 : read_contract)(reader, m);
    if (m.kind == "propagator") {
        read_strides(reader, m);
        m.ensemble = reader.string("ensemble");
        TORCH_CHECK_VALUE(
            !m.masses.empty(), reader.where("masses"),
            " is missing, and a propagator holds for the masses it was trained with; export the model again");
    }
    return m;
}

std::string describe(const Metadata &metadata) {
    const Contract &contract = metadata.contract;
    std::ostringstream text;
    text << std::boolalpha << std::setprecision(17);
    text << "{\"message_passing_steps\": " << contract.message_passing_steps << ", \"interaction_range\": ";
    metadata.range ? text << *metadata.range : text << "\"all\"";
    const char *const words[] = {"none", "input", "fixed"};
    text << ", \"charge_spin\": \"" << words[static_cast<int>(metadata.charge_spin)]
         << "\", \"global_sums\": " << contract.global_sums
         << ", \"capabilities\": {\"decomposable\": " << contract.decomposable << ", \"padded\": " << contract.padded
         << ", \"batched\": " << contract.batched << ", \"uncertainty\": " << contract.uncertainty
         << ", \"angular_momentum\": " << contract.angular_momentum << "}, \"limits\": {";
    const char *comma = "";
    for (const auto &[name, limit] : {std::pair{"shortest_bond", contract.limits.shortest_bond},
                                      std::pair{"fastest_atom", contract.limits.fastest_atom},
                                      std::pair{"smallest_box", contract.limits.smallest_box}})
        if (limit > 0) {
            text << comma << '"' << name << "\": " << limit;
            comma = ", ";
        }
    text << "}, \"operators\": {";
    comma = "";
    for (const auto &[name, version] : contract.operators) {
        text << comma << '"' << name << "\": " << version;
        comma = ", ";
    }
    text << "}}";
    return text.str();
}

} // namespace equistride
