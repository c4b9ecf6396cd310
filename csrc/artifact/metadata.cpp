#include "artifact/metadata.h"

#include "artifact/json.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace equistride {
namespace {

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

void read_system(const Reader &reader, Metadata &m) {
    const json::Value *system = reader.find("system");
    if (!system)
        return;
    const json::Object &table = system->object(reader.where("system"));
    const auto charge = table.find("charge"), spin = table.find("spin");
    m.knows_system = charge != table.end() && spin != table.end();
    if (m.knows_system) {
        m.charge = charge->second.number(reader.where("system"));
        m.spin = spin->second.number(reader.where("system"));
    }
}

void read_compiled(const Reader &reader, Metadata &m) {
    const json::Value *compiled = reader.find("compiled");
    if (!compiled)
        return;
    const Reader facts(compiled->object(reader.where("compiled")), "'compiled' of " + m.architecture);
    m.compiled = {facts.string("torch"),
                  facts.string("device"),
                  facts.string("machine"),
                  facts.one_of("instruction_set", {"portable", "avx2", "avx512"}),
                  static_cast<int>(facts.need("exchanges").integer(facts.where("exchanges"))),
                  facts.find("shortest") ? facts.positive("shortest") : 0.0};
}

} // namespace

int Metadata::species_index(const std::string &symbol) const {
    const auto it = std::find(species.begin(), species.end(), symbol);
    TORCH_CHECK_VALUE(it != species.end(), "the model does not know the element ", symbol, "; expected one of ",
                      c10::Join(", ", species), "; train or choose a model with ", symbol);
    return static_cast<int>(it - species.begin());
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
    if (const json::Value *layers = reader.find("num_layers"))
        m.num_layers = static_cast<int>(layers->integer(reader.where("num_layers")));
    m.interaction_range =
        reader.find("interaction_range") ? reader.positive("interaction_range") : m.cutoff * std::max(1, m.num_layers);
    // eSEN's first features are sums over neighbours too, which earlier files do not count.
    if (m.architecture.find("esen") != std::string::npos)
        m.interaction_range = std::max(m.interaction_range, m.cutoff * (m.num_layers + 1));
    m.dtype = reader.one_of("dtype", {"float32", "float64"});
    check_units(reader);
    if (reader.find("periodic"))
        m.requires_box = reader.one_of("periodic", {"any", "required"}) == "required";
    read_system(reader, m);
    read_compiled(reader, m);
    if (reader.find("max_speed"))
        m.max_speed = reader.positive("max_speed");
    if (m.kind == "propagator") {
        m.stride_fs = reader.positive("stride_fs");
        m.ensemble = reader.string("ensemble");
        TORCH_CHECK_VALUE(
            !m.masses.empty(), reader.where("masses"),
            " is missing, and a propagator holds for the masses it was trained with; export the model again");
    }
    return m;
}

} // namespace equistride
